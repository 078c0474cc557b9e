"""A data set of GPT-1's tables 2 to 4, as its owner distributes it, as the records of our configs.

    python experiments/gpt1/prepare.py mnli GLUE/MNLI gpt1_data

reads the folder GLUE/MNLI and writes gpt1_data/mnli/{train,validation,test}.jsonl, which
configs/gpt1_mnli.py reads. README.md beside this file has the command of every task. Nothing is
downloaded.

Where the labels of a test set are not public (GLUE), or there are no labelled stories but two sets
(StoryCloze), the second labelled set is the test, and every tenth example of the first is for
validation.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]
Lines = list[Record | None]
"""None stands for a line that is left out: without a label, or with another number of columns."""
Splits = dict[str, Lines]

HELD_OUT = 10


class Glue(NamedTuple):
    """A folder of GLUE (Wang et al. 2018): train.tsv, and development sets that are the test."""

    columns: Mapping[str, str]
    """The header's name of a column -> our field."""
    classes: Mapping[str, str] = {}
    """A label as it is in the file -> our name of the class; empty = as it is."""
    tests: Mapping[str, str] = {"": "dev.tsv"}
    """Part of the test -> its file; a part is kept as the record's field `part`."""
    header: tuple[str, ...] = ()
    """Names of the columns of a file without a header."""
    is_value: bool = False
    """Whether the label is a number."""


GLUE = {
    "mnli": Glue(
        {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
        tests={"matched": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"},
    ),
    "qnli": Glue({"question": "premise", "sentence": "hypothesis", "label": "label"}),
    "rte": Glue({"sentence1": "premise", "sentence2": "hypothesis", "label": "label"}),
    "cola": Glue(
        {"sentence": "text", "acceptable": "label"},
        {"0": "unacceptable", "1": "acceptable"},
        header=("source", "acceptable", "authors_mark", "sentence"),
    ),
    "sst2": Glue({"sentence": "text", "label": "label"}, {"0": "negative", "1": "positive"}),
    "mrpc": Glue(
        {"#1 String": "first", "#2 String": "second", "Quality": "label"},
        {"0": "different", "1": "paraphrase"},
    ),
    "stsb": Glue({"sentence1": "first", "sentence2": "second", "score": "label"}, is_value=True),
    "qqp": Glue(
        {"question1": "first", "question2": "second", "is_duplicate": "label"},
        {"0": "different", "1": "duplicate"},
    ),
}


def glue(task: Glue, folder: Path) -> Splits:
    """Records of a folder of GLUE. Of QNLI the question is the premise, as it comes first there."""

    def read(name: str, part: str = "") -> Lines:
        path = folder / name
        found = table(path, task.columns, task.header)
        return [r and labelled(r, task, path) | ({"part": part} if part else {}) for r in found]

    test = [record for part, name in task.tests.items() for record in read(name, part)]
    return held_out(read("train.tsv"), test)


def labelled(record: Record, task: Glue, path: Path) -> Record:
    """The record with our label. Raises ValueError for a label that the task does not have."""
    label = record["label"]
    if task.is_value:
        return record | {"label": float(label)}
    if task.classes and label not in task.classes:
        raise ValueError(f"{path}: a label is {label!r}; allowed: {', '.join(task.classes)}")
    return record | {"label": task.classes.get(label, label)}


def table(path: Path, columns: Mapping[str, str], header: Sequence[str] = ()) -> Lines:
    """Records of a file of tab-separated columns, in which a quotation mark is a character.

    columns: {name in the header: field}. header: of a file that has none. Raises ValueError if a
    column is missing.
    """
    lines = [line.removesuffix("\r").split("\t") for line in read_text(path).split("\n") if line]
    names = list(header) or lines.pop(0)
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}, but {', '.join(names)}")
    places = {field: names.index(name) for name, field in columns.items()}
    return [
        {field: line[place] for field, place in places.items()} if len(line) == len(names) else None
        for line in lines
    ]


def read_text(path: Path) -> str:
    """A file's text without a mark of its byte order, line ends as they are; ValueError for a file
    that is missing."""
    if not path.is_file():
        raise ValueError(f"no file {path}; the folder is to be as its owner distributes it")
    return path.read_bytes().decode("utf-8-sig")


def held_out(train: Lines, test: Lines) -> Splits:
    """Every tenth training example is for validation."""
    kept = [record for i, record in enumerate(train) if i % HELD_OUT]
    return {"train": kept, "validation": train[::HELD_OUT], "test": test}


def snli(folder: Path) -> Splits:
    """SNLI (Bowman et al. 2015): snli_1.0_*.jsonl; pairs on which its annotators did not agree,
    labelled "-", are left out."""

    def read(split: str) -> Lines:
        text = read_text(folder / f"snli_1.0_{split}.jsonl")
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
        return [
            None
            if pair["gold_label"] == "-"
            else {
                "premise": pair["sentence1"],
                "hypothesis": pair["sentence2"],
                "label": pair["gold_label"],
            }
            for pair in found
        ]

    return {"train": read("train"), "validation": read("dev"), "test": read("test")}


def scitail(folder: Path) -> Splits:
    """SciTail (Khot et al. 2018), its tsv_format: premise, hypothesis and label, no header."""
    names = ("premise", "hypothesis", "label")

    def read(split: str) -> Lines:
        return table(folder / f"scitail_1.0_{split}.tsv", {name: name for name in names}, names)

    return {"train": read("train"), "validation": read("dev"), "test": read("test")}


def race(folder: Path) -> Splits:
    """RACE (Lai et al. 2017): {train,dev,test}/{middle,high}/*.txt, a JSON text with its questions
    each; a record a question, its school as `part`."""

    def read(split: str) -> Lines:
        found: Lines = []
        for school in ("middle", "high"):
            paths = sorted((folder / split / school).glob("*.txt"))
            if not paths:
                raise ValueError(f"no files {folder / split / school}/*.txt")
            for path in paths:
                found += questions(json.loads(read_text(path)), school)
        return found

    return {"train": read("train"), "validation": read("dev"), "test": read("test")}


def questions(text: Record, school: str) -> Iterable[Record]:
    """A record of each question on a text of RACE."""
    asked = zip(text["questions"], text["options"], text["answers"], strict=True)
    for question, options, answer in asked:
        yield {
            "article": text["article"],
            "question": question,
            "options": options,
            "label": "ABCD".index(answer),
            "part": school,
        }


def storycloze(folder: Path) -> Splits:
    """StoryCloze of spring 2016 (Mostafazadeh et al. 2017): its validation stories are to train on
    and its test stories are the test; other stories have no wrong ending."""

    def read(split: str) -> Lines:
        pattern = f"cloze_test_{split}__*.csv"
        paths = sorted(folder.glob(pattern))
        if len(paths) != 1:
            raise ValueError(f"{len(paths)} files {folder}/{pattern}; one is needed")
        with paths[0].open(encoding="utf-8-sig", newline="") as file:
            return [story(row, paths[0]) for row in csv.DictReader(file)]

    return held_out(read("val"), read("test"))


def story(row: dict[str, str], path: Path) -> Record:
    """Raises ValueError for a row that lacks a column."""
    sentences = [f"InputSentence{i}" for i in range(1, 5)]
    endings = [f"RandomFifthSentenceQuiz{i}" for i in (1, 2)]
    missing = [name for name in (*sentences, *endings, "AnswerRightEnding") if not row.get(name)]
    if missing:
        raise ValueError(
            f"{path} has no {missing[0]} in a row; its columns: {', '.join(map(str, row))}"
        )
    return {
        "context": " ".join(row[name] for name in sentences),
        "options": [row[name] for name in endings],
        "label": int(row["AnswerRightEnding"]) - 1,
    }


OTHERS: dict[str, Callable[[Path], Splits]] = {
    "snli": snli,
    "scitail": scitail,
    "race": race,
    "storycloze": storycloze,
}
TASKS = (*GLUE, *OTHERS)


def prepare(task: str, source: Path, target: Path) -> None:
    """Write target/task/*.jsonl and print counts. Raises ValueError for another folder."""
    splits = glue(GLUE[task], source) if task in GLUE else OTHERS[task](source)
    for split, lines in splits.items():
        kept = [record for record in lines if record is not None]
        path = target / task / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        path.write_text(text, encoding="utf-8")
        left_out = f", {len(lines) - len(kept):,} lines left out" if len(kept) < len(lines) else ""
        print(f"{task:<12}{split:<12}{len(kept):>9,} examples{left_out}")


def main(argv: Sequence[str] | None = None) -> int:
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("source", type=Path, help="the folder, as its owner distributes it")
    parser.add_argument("target", type=Path, help="gpt1_data, from which the configs read")
    given = parser.parse_args(argv)
    try:
        prepare(given.task, given.source, given.target)
    except ValueError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
