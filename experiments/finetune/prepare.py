"""The texts and examples of this experiment, from real data, as the files that its configs read.

    python experiments/finetune/prepare.py SHARED_DATA finetune_data

SHARED_DATA holds `text/`, `eval/` and `finetune/` as README.md beside this file lists them.
Writes `finetune_data/english.jsonl` (unlabelled text for the base model; held-out sentences of the
tasks are not among it) and `finetune_data/TASK/{train,validation,test}.jsonl`; of
digits also `mnist/images.npy`.
"""

import bz2
import gzip
import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt_jax.storage import tables

Example = dict[str, Any]


def main(source: Path, target: Path) -> None:
    tasks = {
        "sst2": sst2(source / "finetune/sst2"),
        "rte": rte(source / "finetune/rte"),
        "wnut17": wnut17(source / "finetune/wnut17"),
        "multi30k": multi30k(source / "finetune/multi30k_en_de"),
    }
    for task, splits in tasks.items():
        for split, examples in splits.items():
            lines = [json.dumps(example, ensure_ascii=False) for example in examples]
            write(target / task / f"{split}.jsonl", lines)
            print(f"{task:<10}{split:<12}{len(lines):>7,} examples")
    images, digits = mnist(source / "image/mnist_t10k")
    for split, examples in digits.items():
        write(target / "mnist" / f"{split}.jsonl", map(json.dumps, examples))
        print(f"{'mnist':<10}{split:<12}{len(examples):>7,} examples")
    np.save(target / "mnist" / "images.npy", images)
    texts = []
    for name, documents in english(source, tasks):
        texts += documents
        print(f"english   {name:<12}{sum(map(len, documents)):>11,} characters")
    write(target / "english.jsonl", [json.dumps({"text": t}, ensure_ascii=False) for t in texts])


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_lines(path: Path) -> list[str]:
    """The lines of a file, compressed or not; only the newline ends one."""
    opened = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    with opened(path, "rt", encoding="utf-8") as file:
        return file.read().rstrip("\n").split("\n")


def sst2(folder: Path) -> dict[str, list[Example]]:
    """SST-2 (Socher et al. 2013), sentences alone: a digit, a blank, the sentence."""
    names = {"0": "negative", "1": "positive"}

    def read(split: str) -> list[Example]:
        pairs = [line.split(" ", 1) for line in read_lines(folder / f"stsa.binary.{split}")]
        return [{"text": text, "label": names[digit]} for digit, text in pairs]

    return {"train": read("train"), "validation": read("dev"), "test": read("test")}


def rte(folder: Path) -> dict[str, list[Example]]:
    """RTE in SuperGLUE's form. Its test labels are not public: the validation split is the test,
    and every tenth training example is for validation."""
    train = [json.loads(line) for line in read_lines(folder / "train.jsonl")]
    test = [json.loads(line) for line in read_lines(folder / "val.jsonl")]
    kept = [example for i, example in enumerate(train) if i % 10]
    return {"train": kept, "validation": train[::10], "test": test}


def wnut17(folder: Path) -> dict[str, list[Example]]:
    """WNUT-17 (Derczynski et al. 2017): words with their IOB2 tags."""

    def read(name: str) -> list[Example]:
        return [dict(row) for row in tables.read(folder / name).rows]

    return {
        "train": read("wnut17train.conll"),
        "validation": read("emerging.dev.conll"),
        "test": read("emerging.test.annotated"),
    }


def multi30k(folder: Path) -> dict[str, list[Example]]:
    """Multi30k (Elliott et al. 2016), English to German."""

    def read(split: str) -> list[Example]:
        english, german = (read_lines(folder / f"{split}.{code}.gz") for code in ("en", "de"))
        return [
            {"prompt": source, "response": target}
            for source, target in zip(english, german, strict=True)
        ]

    return {
        "train": read("train"),
        "validation": read("val"),
        "test": read("test_2016_flickr"),
    }


NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CANVAS, DIGIT, JITTER = 48, 28, 4
PLACEMENTS = 5
"""Of each training digit: a digit of its own place and jitter each time."""


def mnist(folder: Path) -> tuple[np.ndarray, dict[str, list[Example]]]:
    """MNIST's 10,000 test digits (LeCun et al. 1998), each somewhere on a larger canvas, with a
    caption of what it is and where: 8,000 to train, 1,000 to validate, 1,000 to test."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        digits = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, DIGIT, DIGIT)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    draw = np.random.default_rng(0)
    order = draw.permutation(len(digits))
    splits = {
        "train": np.tile(order[:8000], PLACEMENTS),
        "validation": order[8000:9000],
        "test": order[9000:],
    }
    images, examples = [], {}
    for split, indices in splits.items():
        examples[split] = []
        for i in indices:
            bottom, right = draw.integers(2, size=2)
            y, x = draw.integers(JITTER + 1, size=2) + (CANVAS - DIGIT - JITTER) * np.array(
                [bottom, right]
            )
            canvas = np.zeros((CANVAS, CANVAS), np.uint8)
            canvas[y : y + DIGIT, x : x + DIGIT] = digits[i]
            place = f"{'bottom' if bottom else 'top'} {'right' if right else 'left'}"
            caption = f"a {NUMERALS[labels[i]]}, {place}"
            examples[split].append({"image": len(images), "prompt": "", "response": caption})
            images.append(canvas)
    return np.stack(images), examples


def english(
    source: Path, tasks: dict[str, dict[str, list[Example]]]
) -> Iterator[tuple[str, list[str]]]:
    """(name, documents): public text for the base model, and training texts without labels."""
    for name in ("tinyshakespeare", "wikitext2_valid", "wikitext2_test"):
        yield name, joined(read_lines(source / f"text/{name}.txt"), 40)
    passages = map(json.loads, read_lines(source / "eval/lambada_openai.jsonl"))
    yield "lambada", [f"{p['context']} {p['continuation']}" for p in passages]
    items = read_lines(source / "eval/hellaswag_val_full.txt.bz2")
    groups = [items[i : i + 6] for i in range(0, len(items), 6)]
    yield "hellaswag", [f"{group[0]} {group[2 + int(group[1])]}" for group in groups]
    questions = map(json.loads, read_lines(source / "eval/piqa.jsonl"))
    yield "piqa", [f"{q['query']}{q['choices'][q['gold']]}" for q in questions]
    for task, fields in (
        ("sst2", ("text",)),
        ("rte", ("premise", "hypothesis")),
        ("multi30k", ("prompt",)),
        ("wnut17", ("tokens",)),
    ):
        texts = [example[field] for example in tasks[task]["train"] for field in fields]
        sentences = [text if isinstance(text, str) else " ".join(text) for text in texts]
        random.Random(0).shuffle(sentences)
        yield task, joined(sentences, 8)


def joined(lines: list[str], n: int) -> list[str]:
    """Documents of n lines each."""
    return ["\n".join(lines[i : i + n]) for i in range(0, len(lines), n)]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
