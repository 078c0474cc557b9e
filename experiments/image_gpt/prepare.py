"""MNIST as text, a character a pixel: what `configs/image_gpt_mnist.py` trains on.

    python experiments/image_gpt/prepare.py MNIST image_gpt_data

MNIST is a folder with t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz. Writes

    train.jsonl, validation.jsonl    9,000 and 1,000 digits, each a response to an empty prompt
    tokenizer_spec.json              a token for each level of grey, and one that begins an image
    template.json                    nothing stands around an image's characters, nor after them

An image is 14 x 14 pixels in raster order, means of 2 x 2, in 8 equal levels of grey (Chen et al.
2020 shrink likewise, and find 512 colours by k-means).
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers.entries.char import CharTokenizer

SIDE = 14
N_PIXELS = SIDE * SIDE
LEVELS = "01234567"
"""Characters of the levels, from the background to full ink; a level is its token's id."""
BEGIN = "\n"
"""Stands before an image: what gpt_jax puts before a text without context."""
N_HELD_OUT = 1_000


def main(source: Path, target: Path) -> None:
    images, labels = read_mnist(source)
    order = np.random.default_rng(0).permutation(len(images))
    folds = {"train": order[:-N_HELD_OUT], "validation": order[-N_HELD_OUT:]}
    target.mkdir(parents=True, exist_ok=True)
    for fold, indices in folds.items():
        levels = quantise(shrink(images[indices]))
        records = [
            {"prompt": "", "response": to_text(image), "digit": int(digit)}
            for image, digit in zip(levels, labels[indices], strict=True)
        ]
        lines = [json.dumps(record) + "\n" for record in records]
        (target / f"{fold}.jsonl").write_text("".join(lines))
        print(f"{fold:<12}{len(lines):>7,} images of {SIDE} x {SIDE}, {len(LEVELS)} levels")
    tokenizer().save(target)
    template = {"roles": {"user": ["", ""], "assistant": ["", ""]}, "end": False}
    (target / "template.json").write_text(json.dumps(template) + "\n")


def tokenizer() -> CharTokenizer:
    """The levels' characters, and BEGIN last: ids below len(LEVELS) are pixels."""
    return CharTokenizer(LEVELS + BEGIN)


def read_mnist(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(images [N, 28, 28], labels [N]) of MNIST's test files (LeCun et al. 1998)."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 2 * SIDE, 2 * SIDE)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def shrink(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[N, 14, 14] means of 2 x 2 pixels of [N, 28, 28]; grey from 0 to 255."""
    return images.reshape(-1, SIDE, 2, SIDE, 2).mean(axis=(2, 4))


def quantise(grey: NDArray[np.floating]) -> NDArray[np.int64]:
    """The nearest of the equally spaced levels to each grey from 0 to 255."""
    return np.rint(grey / 255 * (len(LEVELS) - 1)).astype(np.int64)


def to_grey(levels: NDArray[np.integer]) -> NDArray[np.float64]:
    """The grey from 0 to 255 of each level."""
    return levels / (len(LEVELS) - 1) * 255


def to_text(levels: NDArray[np.integer]) -> str:
    """An image's levels [14, 14], or the first so many of them, as characters in raster order."""
    return "".join(LEVELS[level] for level in levels.reshape(-1))


def to_levels(text: str) -> NDArray[np.int64]:
    """[14, 14] levels of an image's characters.

    Raises ValueError for another number of characters, or another character.
    """
    wrong = sorted(set(text) - set(LEVELS))
    if wrong or len(text) != N_PIXELS:
        raise ValueError(
            f"{len(text)} characters{f', among them {wrong[0]!r}' if wrong else ''}: an image is "
            f"{N_PIXELS} of {LEVELS}"
        )
    return np.array([LEVELS.index(c) for c in text]).reshape(SIDE, SIDE)


def read_fold(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(levels [N, 14, 14], digits [N]) of a .jsonl file that `main` wrote."""
    records = [json.loads(line) for line in path.open()]
    levels = np.stack([to_levels(record["response"]) for record in records])
    return levels, np.array([record["digit"] for record in records])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
