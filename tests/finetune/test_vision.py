"""Images before text: what the encoder computes, and that captions are learned from pixels."""

import json

import jax
import numpy as np
import pytest

from gpt_jax import cli
from gpt_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    ModelConfig,
    TaskConfig,
    TrainConfig,
    overrides,
)
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.finetune import examples
from gpt_jax.finetune.objective import task_objective
from gpt_jax.finetune.responses import image_prefix
from gpt_jax.models.gpt import make_gpt
from gpt_jax.models.vision import encode, fresh_encoder
from gpt_jax.steps.program import make_steps
from gpt_jax.train.loop import train

CORNERS = ("top left", "top right", "bottom left", "bottom right")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """16 x 16 pixels with a bright corner, and captions that say which."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (96, 16, 16)).astype(np.uint8)
    found = []
    for i in range(96):
        corner = i % 4
        y, x = 8 * (corner // 2), 8 * (corner % 2)
        images[i, y : y + 8, x : x + 8] += 150
        found.append({"image": i, "prompt": "", "response": CORNERS[corner]})
    np.save(root / "images.npy", images)
    for name, part in (("train", found[:64]), ("held", found[64:])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    return root


def config(root, encoder, **changes):
    made = Config(
        name="pictures",
        model=ModelConfig(
            vocab_size=257, seq_len=32, n_layers=1, d_model=32, n_heads=2, position="rotary"
        ),
        data=DataConfig(tokenizer="byte"),
        task=TaskConfig(
            name="respond",
            train=str(root / "train.jsonl"),
            validation=str(root / "held.jsonl"),
            test=str(root / "held.jsonl"),
            images=str(root / "images.npy"),
            image_encoder=encoder,
            image_patch=8,
            image_width=4,
            epochs=60 if encoder == "patches" else 30,
        ),
        train=TrainConfig(batch_sequences=16),
        checkpoint=CheckpointConfig(keep_best=1),
    )
    return overrides.override(made, {"optimizer.learning_rate": 5e-3, **changes})


@pytest.mark.parametrize(
    "encoder", [pytest.param("patches", marks=pytest.mark.slow), "convolution"]
)
def test_captions_are_learned_and_generated(pictures, tmp_path, encoder):
    result = train(config(pictures, encoder), tmp_path / "run")
    assert result["test_exact_match"] > 0.9
    said = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").open()]
    assert np.mean([r["predicted"] == r["response"] for r in said]) == result["test_exact_match"]
    out = tmp_path / "out.jsonl"
    command = ["predict", str(tmp_path / "run"), "--input", str(pictures / "held.jsonl")]
    assert cli.main([*command, "--output", str(out), "--batch", "5"]) == 0
    again = [json.loads(line)["response"] for line in out.open()]
    assert again == [r["predicted"] for r in said], "whatever the batch"


def test_patches_are_a_projection_of_each_patch():
    task = TaskConfig(
        name="respond", train="x", image_encoder="patches", image_patch=4, image_shape=(8, 12, 2)
    )
    flat = fresh_encoder(task, 5, jax.random.key(0))
    vision = {
        "projection": {name: flat[f"vision/projection/{name}"] for name in ("kernel", "bias")},
        "positions": flat["vision/positions"],
    }
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 2)).astype(np.uint8)
    made = encode(task, vision, images.reshape(3, -1))
    assert made.shape == (3, task.image_tokens, 5) == (3, 6, 5)
    patch = images[1, 4:8, 8:12].astype(np.float32) / 127.5 - 1
    expected = patch.reshape(-1) @ vision["projection"]["kernel"] + vision["positions"][5]
    np.testing.assert_allclose(made[1, 5], expected, atol=1e-5)


def test_a_convolution_has_the_size_that_the_config_says():
    for shape in ((28, 28, 1), (30, 17, 3), (8, 8, 1)):
        task = TaskConfig(name="respond", train="x", image_encoder="convolution", image_shape=shape)
        flat = jax.eval_shape(lambda t=task: fresh_encoder(t, 4, jax.random.key(0)))
        vision: dict = {}
        for path, x in flat.items():
            *parents, leaf = path.removeprefix("vision/").split("/")
            node = vision
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = x
        images = jax.ShapeDtypeStruct((2, int(np.prod(shape))), np.uint8)
        made = jax.eval_shape(lambda v, i, t=task: encode(t, v, i), vision, images)
        assert made.shape == (2, task.image_tokens, 4)


def test_the_encoder_is_trained_jointly(pictures):
    made = examples.resolve(config(pictures, "convolution"), ByteTokenizer())
    model = make_gpt(made.model, made.compute)
    params = jax.jit(make_steps(made, model).init)(jax.random.key(0)).params
    found = examples.read_records(made.task.train)
    batch = examples.load_rows(made, ByteTokenizer(), found, "").rows(np.arange(4))
    loss = jax.jit(
        jax.value_and_grad(lambda p, b: task_objective(made, model).loss(p, b, None, {})[0])
    )
    before, gradient = loss(params, batch)
    assert all(float(abs(x).max()) > 0 for x in jax.tree.leaves(gradient["vision"]))
    prefix = image_prefix(made, params["vision"], batch.images_BX)
    assert prefix.shape == (4, 4, 32)
    # The text's own tokens at these places are not read.
    tokens = batch.tokens_BT.copy()
    tokens[:, :4] = 9
    np.testing.assert_allclose(loss(params, batch._replace(tokens_BT=tokens))[0], before)


def test_mistakes(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"task\.images and task\.image_encoder go together"):
        config(pictures, "none")
    wrong = config(pictures, "patches", **{"task.image_patch": 7})
    with pytest.raises(ValueError, match=r"task\.image_patch = 7 does not divide the image's 16"):
        examples.resolve(wrong, ByteTokenizer())
    made = examples.resolve(config(pictures, "patches"), ByteTokenizer())
    with pytest.raises(ValueError, match="its image, 96, is none of the 96 in"):
        examples.load_images(made.task, [{"image": 96}])
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"holds float64\[2, 3\]; images"):
        examples.open_images(str(tmp_path / "x.npy"))
