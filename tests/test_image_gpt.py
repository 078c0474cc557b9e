"""experiments/image_gpt: pixels to text and back, one image a sequence, baselines that count."""

import gzip
import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gpt_jax.config import Config
from gpt_jax.config.overrides import load, override
from gpt_jax.data.tokenizers import load_tokenizer
from gpt_jax.finetune.examples import load_rows, split_records
from gpt_jax.train.experiment import resolved

ROOT = Path(__file__).resolve().parent.parent
N_TRAINING = 7


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """prepare.py and draw.py, which imports the former as a neighbour."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "experiments" / "image_gpt"))
        for name in ("prepare", "draw"):
            patch.delitem(sys.modules, name, raising=False)
        loaded = {name: importlib.import_module(name) for name in ("prepare", "draw")}
        for name in loaded:
            del sys.modules[name]
        yield loaded


@pytest.fixture(scope="module")
def prepare(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["prepare"]


@pytest.fixture(scope="module")
def draw(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["draw"]


@pytest.fixture(scope="module")
def pixels(prepare: ModuleType) -> np.ndarray:
    n = N_TRAINING + prepare.N_HELD_OUT
    return np.random.default_rng(0).integers(256, size=(n, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def data(prepare: ModuleType, pixels: np.ndarray, tmp_path_factory) -> Path:
    """What the preparation writes of files in MNIST's form; the label of an image is i % 10."""
    source, target = tmp_path_factory.mktemp("mnist"), tmp_path_factory.mktemp("data")
    labels = (np.arange(len(pixels)) % 10).astype(np.uint8)
    for name, header, values in (
        ("t10k-images-idx3-ubyte.gz", 16, pixels),
        ("t10k-labels-idx1-ubyte.gz", 8, labels),
    ):
        with gzip.open(source / name, "wb", compresslevel=1) as file:
            file.write(bytes(header) + values.tobytes())
    prepare.main(source, target)
    return target


@pytest.fixture(scope="module")
def config(data: Path) -> Config:
    files = {
        "data.tokenizer": "tokenizer_spec.json",
        "task.train": "train.jsonl",
        "task.validation": "validation.jsonl",
        "task.template": "template.json",
    }
    changes = {key: str(data / name) for key, name in files.items()}
    return override(load(ROOT / "configs" / "image_gpt_mnist.py"), changes)


def test_shrinking_takes_means_of_four_pixels(prepare):
    image = np.arange(28 * 28).reshape(1, 28, 28) % 251
    small = prepare.shrink(image.astype(np.uint8))
    assert small.shape == (1, 14, 14)
    assert small[0, 3, 5] == image[0, 6:8, 10:12].mean()


def test_pixels_come_back_from_text_up_to_the_palette(prepare, pixels):
    grey = prepare.shrink(pixels)[:20]
    levels = prepare.quantise(grey)
    texts = [prepare.to_text(image) for image in levels]
    again = np.stack([prepare.to_levels(text) for text in texts])
    np.testing.assert_array_equal(again, levels)
    half_a_level = 255 / (len(prepare.LEVELS) - 1) / 2
    assert np.abs(prepare.to_grey(again) - grey).max() <= half_a_level
    every = np.arange(len(prepare.LEVELS))
    np.testing.assert_array_equal(prepare.quantise(prepare.to_grey(every)), every)


@pytest.mark.parametrize(("text", "named"), [("0" * 195, "195"), ("0" * 195 + "9", "'9'")])
def test_what_is_no_image_is_refused(prepare, text, named):
    with pytest.raises(ValueError, match=named):
        prepare.to_levels(text)


def test_folds_hold_every_image_once(prepare, data, pixels):
    training, _ = prepare.read_fold(data / "train.jsonl")
    held_out, digits = prepare.read_fold(data / "validation.jsonl")
    assert (len(training), len(held_out)) == (N_TRAINING, prepare.N_HELD_OUT)
    levels = prepare.quantise(prepare.shrink(pixels))
    place = {prepare.to_text(image): i for i, image in enumerate(levels)}
    found = [place[prepare.to_text(image)] for image in (*training, *held_out)]
    assert sorted(found) == list(range(len(pixels)))
    np.testing.assert_array_equal(digits, np.array(found[N_TRAINING:]) % 10)


def test_an_image_is_one_sequence_of_which_every_pixel_is_learned(prepare, data, config):
    tokenizer = load_tokenizer(data)
    config = resolved(config)
    records, _ = split_records(config)
    batch = load_rows(config, tokenizer, records, config.task.train).batch
    levels, _ = prepare.read_fold(data / "train.jsonl")
    flat = levels.reshape(N_TRAINING, prepare.N_PIXELS)
    (begin,) = tokenizer.encode(prepare.BEGIN)
    assert batch.tokens_BT.shape == (N_TRAINING, config.model.seq_len) == (N_TRAINING, 197)
    assert (batch.tokens_BT[:, 0] == begin).all()
    np.testing.assert_array_equal(batch.tokens_BT[:, 1:], flat)
    np.testing.assert_array_equal(batch.targets_BT[:, :-1], flat)
    assert (batch.weights_BT[:, :-1] == 1).all()
    assert (batch.weights_BT[:, -1] == 0).all()
    assert tokenizer.vocab_size == config.model.vocab_size
    assert begin == len(prepare.LEVELS), "it is what generate_tokens must not draw"


def test_baselines_are_the_entropies_of_what_they_count(draw):
    random = np.random.default_rng(0)
    # A coin a pixel, and noise-free rows: each pixel as the one to its left.
    coins = random.integers(2, size=(4000, 14, 14))
    rows = np.repeat(random.integers(2, size=(4000, 14, 1)), 14, axis=2)
    found = draw.baselines(coins[:3000], coins[3000:])
    assert found["position"] == pytest.approx(math.log(2), abs=5e-3)
    assert found["neighbours"] == pytest.approx(math.log(2), abs=5e-3)
    found = draw.baselines(rows[:3000], rows[3000:])
    assert found["position"] == pytest.approx(math.log(2), abs=5e-3)
    assert found["neighbours"] < 0.3


def test_a_figure_has_all_its_images(draw, tmp_path):
    random = np.random.default_rng(0)

    def images(n: int) -> np.ndarray:
        return random.integers(8, size=(n, 14, 14))

    n_samples, n_completions = (10 * n for n in (draw.SAMPLE_ROWS, draw.COMPLETION_ROWS))
    path = tmp_path / "samples.png"
    draw.draw_figure(images(n_samples), images(10), images(n_completions), path)
    assert path.stat().st_size > 1000
