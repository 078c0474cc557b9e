"""Samples and completions of `configs/image_gpt_mnist.py`, and its loss beside baselines.

    python experiments/image_gpt/draw.py                                   the table of results.json
    python experiments/image_gpt/draw.py --run runs/image_gpt_mnist --data image_gpt_data
                                             reads the run, writes results.json and samples.png

Samples are drawn at temperature 1 from the whole distribution; nothing is picked.
"""

import argparse
import json
import math
from pathlib import Path

from gpt_jax.runtime import prepare_process

prepare_process()

import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from prepare import BEGIN, LEVELS, N_PIXELS, SIDE, read_fold, to_grey  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
N_GIVEN = SIDE // 2 * SIDE
"""Pixels of an upper half."""
COLUMNS, SAMPLE_ROWS, COMPLETION_ROWS = 10, 3, 3
GAP = 2
"""Pixels between images."""

Images = NDArray[np.int64]
"""Levels [N, 14, 14]."""
Pixels = NDArray[np.int64]
"""Levels [N, P] of the first P pixels of images."""


def generate(run: Path, upper_halves: Pixels) -> tuple[Images, Images]:
    """(samples, completions): SAMPLE_ROWS of COLUMNS images out of nothing, and COMPLETION_ROWS of
    each upper half, those of one half after another."""
    from gpt_jax.inference.decode import decoding_params, generate_tokens
    from gpt_jax.inference.settings import SamplingConfig
    from gpt_jax.runs.loading import load_run

    _, model, params, tokenizer = load_run(run)
    params, begin = decoding_params(model, params), tokenizer.encode(BEGIN)

    def draw(given: Pixels) -> Images:
        prompts = [np.concatenate([begin, pixels]) for pixels in given]
        sampling = SamplingConfig(max_new_tokens=N_PIXELS - given.shape[1])
        new = generate_tokens(model, params, prompts, sampling, vocab_size=len(LEVELS))
        return np.concatenate([given, np.stack(new)], axis=1).reshape(-1, SIDE, SIDE)

    nothing = np.zeros((SAMPLE_ROWS * COLUMNS, 0), np.int64)
    return draw(nothing), draw(np.repeat(upper_halves, COMPLETION_ROWS, axis=0))


def baselines(training: Images, held_out: Images) -> dict[str, float]:
    """Nats per held-out pixel of two counts of training pixels, one added to each count.

    By position alone: the entropy of each pixel's marginal distribution, and what is lost because
    the fold's is another. By the pixels to the left and above: one table for all positions.
    """
    n = len(LEVELS)
    each = np.ones((SIDE, SIDE, n))
    np.add.at(each, (*positions(training), training), 1)
    by_position = each[(*positions(held_out), held_out)] / each.sum(-1)
    near = np.ones((n, n, n))
    np.add.at(near, (*neighbours(training), training), 1)
    by_neighbours = near[(*neighbours(held_out), held_out)] / near[neighbours(held_out)].sum(-1)
    return {
        "position": float(-np.log(by_position).mean()),
        "neighbours": float(-np.log(by_neighbours).mean()),
    }


def positions(images: Images) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, column) of every pixel, each [N, 14, 14]."""
    row, column = np.broadcast_arrays(*np.ix_(range(SIDE), range(SIDE)))
    return np.broadcast_to(row, images.shape), np.broadcast_to(column, images.shape)


def neighbours(images: Images) -> tuple[Images, Images]:
    """(left, above): the level there, of every pixel; outside an image 0."""
    padded = np.pad(images, ((0, 0), (1, 0), (1, 0)))
    return padded[:, 1:, :-1], padded[:, :-1, 1:]


def one_of_each(digits: NDArray[np.int64]) -> list[int]:
    """Where each digit from 0 to 9 comes first."""
    return [int(np.flatnonzero(digits == digit)[0]) for digit in range(COLUMNS)]


def strip(images: Images) -> NDArray[np.float64]:
    """Images side by side as ink from 0 to 1, in a frame of GAP pixels without (nan)."""
    framed = np.full((len(images), SIDE + GAP, SIDE + GAP), np.nan)
    framed[:, :-GAP, :-GAP] = to_grey(images) / 255
    return np.concatenate(list(framed), axis=1)


def draw_figure(samples: Images, originals: Images, completions: Images, path: Path) -> None:
    """Three labelled blocks of rows; a column of the lower two is one held-out digit."""
    per_original = completions.reshape(COLUMNS, COMPLETION_ROWS, SIDE, SIDE)
    blocks = {
        "samples": samples.reshape(SAMPLE_ROWS, COLUMNS, SIDE, SIDE),
        "held-out\ndigits": originals[None],
        "completions of\ntheir upper halves": per_original.swapaxes(0, 1),
    }
    figure = Figure((7.4, 5.3), dpi=110, layout="constrained")
    rows = [len(block) for block in blocks.values()]
    axes = figure.subplots(len(blocks), height_ratios=rows)
    for ax, (label, block) in zip(axes, blocks.items(), strict=True):
        ax.imshow(np.concatenate([strip(row) for row in block]), cmap="gray_r", vmin=0, vmax=1)
        ax.set_facecolor("#dfe6ee")
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if "completions" in label:
            for row in range(COMPLETION_ROWS):
                ax.axhline(row * (SIDE + GAP) + SIDE / 2 - 0.5, color="C3", linewidth=0.8)
    figure.suptitle("Image GPT on MNIST, 14 x 14 pixels: above the red lines is given", fontsize=11)
    figure.savefig(path)


def read_run(run: Path, data: Path) -> dict[str, float | str]:
    """Draws the figure; returns what results.json holds."""
    from gpt_jax.runs.directory import RunDirectory

    result = RunDirectory(run).read_result()
    if result is None:
        raise ValueError(
            f"--run {run} is no finished run; gpt-jax train configs/image_gpt_mnist.py makes it"
        )
    training, _ = read_fold(data / "train.jsonl")
    held_out, digits = read_fold(data / "validation.jsonl")
    originals = held_out[one_of_each(digits)]
    given = originals.reshape(COLUMNS, N_PIXELS)[:, :N_GIVEN]
    samples, completions = generate(run, given)
    draw_figure(samples, originals, completions, HERE / "samples.png")
    names = ("n_params", "n_tokens", "fingerprint", "validation_loss", "validation_tokens")
    return {**{name: result[name] for name in names}, **baselines(training, held_out)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, help="the run's directory")
    parser.add_argument("--data", type=Path, default=Path("image_gpt_data"), help="of prepare.py")
    arguments = parser.parse_args()
    if arguments.run is not None:
        found = read_run(arguments.run, arguments.data)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    found = json.loads(RESULTS.read_text())
    rows = {
        "nothing (8 levels alike)": math.log(len(LEVELS)),
        "where the pixel is: counts": found["position"],
        "the pixels to the left and above: counts": found["neighbours"],
        f"all pixels before it: GPT of {found['n_params']:,} parameters, {found['n_tokens']:,} "
        f"tokens (run {found['fingerprint']})": found["validation_loss"],
    }
    print(f"| what predicts a pixel ({found['validation_tokens']:,} held out) | nats | bits |")
    print("|---|---|---|")
    for name, nats in rows.items():
        print(f"| {name} | {nats:.4f} | {nats / math.log(2):.4f} |")


if __name__ == "__main__":
    main()
