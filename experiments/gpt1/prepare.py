"""GPT-1's fine-tuning tasks, from their owners' files to the records that sweep.py reads.

    python experiments/gpt1/prepare.py SOURCE gpt1_data [TASK ...]

SOURCE holds a folder for each task, as its owners distribute it: GLUE's MNLI, QNLI, RTE, CoLA,
SST-2, MRPC, STS-B, QQP; SNLI (snli_1.0_*.jsonl), SciTail (tsv_format), RACE, StoryCloze (the csv
files of its validation and test sets). Without TASK, all that are there. Writes
gpt1_data/TASK/{train,validation,test}.jsonl and prints how many examples each has. GLUE's test
labels are not public: its development set is the test, and every tenth training example is to
validate on.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Example = dict[str, Any]
Splits = dict[str, list[Example]]


def table(path: Path, names: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Rows of a tab-separated file by the names of its columns, or by these; quotes are text. Rows
    that are cut short are left out."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, names or None, delimiter="\t", quoting=csv.QUOTE_NONE)
        yield from (row for row in rows if None not in row.values())


def held_out(train: list[Example], test: list[Example]) -> Splits:
    """Every tenth training example is to validate on."""
    kept = [example for i, example in enumerate(train) if i % 10]
    return {"train": kept, "validation": train[::10], "test": test}


def glue(
    columns: dict[str, str], dev: str = "dev", names: tuple[str, ...] = ()
) -> Callable[[Path], Splits]:
    """A reader of a GLUE folder; columns: {field of a record: column}."""

    def read(folder: Path) -> Splits:
        def split(name: str) -> list[Example]:
            rows = table(folder / f"{name}.tsv", names)
            return [{field: row[column] for field, column in columns.items()} for row in rows]

        return held_out(split("train"), split(dev))

    return read


def stsb(folder: Path) -> Splits:
    """Similarity from 0 to 5, a number."""
    columns = {"first": "sentence1", "second": "sentence2", "label": "score"}
    return {
        split: [{**example, "label": float(example["label"])} for example in examples]
        for split, examples in glue(columns)(folder).items()
    }


def snli(folder: Path) -> Splits:
    """Pairs on which the annotators did not agree ("-") are left out."""

    def read(name: str) -> list[Example]:
        lines = (folder / f"snli_1.0_{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [
            {"premise": r["sentence1"], "hypothesis": r["sentence2"], "label": r["gold_label"]}
            for r in rows
            if r["gold_label"] != "-"
        ]

    return {"train": read("train"), "validation": read("dev"), "test": read("test")}


def scitail(folder: Path) -> Splits:
    def read(name: str) -> list[Example]:
        path = folder / "tsv_format" / f"scitail_1.0_{name}.tsv"
        return list(table(path, ("premise", "hypothesis", "label")))

    return {"train": read("train"), "validation": read("dev"), "test": read("test")}


def race(levels: tuple[str, ...]) -> Callable[[Path], Splits]:
    """Trained on middle and high school alike; `levels` of the test.

    The context is the question and the article: the paper has the question last (section 3.3),
    where it would be cut from a long article."""

    def read(folder: Path, split: str, levels: tuple[str, ...]) -> list[Example]:
        paths = [p for level in levels for p in sorted((folder / split / level).glob("*.txt"))]
        items = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return [
            {
                "context": f"{question} {item['article']}",
                "options": options,
                "label": "ABCD".index(answer),
            }
            for item in items
            for question, options, answer in zip(
                item["questions"], item["options"], item["answers"], strict=True
            )
        ]

    def splits(folder: Path) -> Splits:
        both = ("middle", "high")
        return {
            "train": read(folder, "train", both),
            "validation": read(folder, "dev", both),
            "test": read(folder, "test", levels),
        }

    return splits


def story_cloze(folder: Path) -> Splits:
    """Trained on the validation set, which alone has wrong endings, but for a tenth of it."""

    def read(word: str) -> list[Example]:
        (path,) = folder.glob(f"*cloze_test*{word}*.csv")
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [
                {
                    "context": " ".join(row[f"InputSentence{i}"] for i in range(1, 5)),
                    "options": [row[f"RandomFifthSentenceQuiz{i}"] for i in (1, 2)],
                    "label": int(row["AnswerRightEnding"]) - 1,
                }
                for row in csv.DictReader(file)
            ]

    return held_out(read("ALL_val"), read("ALL_test"))


PAIR = {"premise": "sentence1", "hypothesis": "sentence2"}
SIMILAR = {"first": "sentence1", "second": "sentence2"}
TASKS: dict[str, tuple[str, Callable[[Path], Splits]]] = {
    "mnli_matched": ("MNLI", glue({**PAIR, "label": "gold_label"}, "dev_matched")),
    "mnli_mismatched": ("MNLI", glue({**PAIR, "label": "gold_label"}, "dev_mismatched")),
    "snli": ("SNLI", snli),
    "scitail": ("SciTail", scitail),
    "qnli": (
        "QNLI",
        glue({"premise": "sentence", "hypothesis": "question", "label": "label"}),
    ),
    "rte": ("RTE", glue({**PAIR, "label": "label"})),
    "story_cloze": ("StoryCloze", story_cloze),
    "race_middle": ("RACE", race(("middle",))),
    "race_high": ("RACE", race(("high",))),
    "race": ("RACE", race(("middle", "high"))),
    "cola": (
        "CoLA",
        glue({"text": "text", "label": "label"}, names=("source", "label", "star", "text")),
    ),
    "sst2": ("SST-2", glue({"text": "sentence", "label": "label"})),
    "mrpc": ("MRPC", glue({"first": "#1 String", "second": "#2 String", "label": "Quality"})),
    "stsb": ("STS-B", stsb),
    "qqp": (
        "QQP",
        glue({"first": "question1", "second": "question2", "label": "is_duplicate"}),
    ),
}
"""Task -> (folder, reader)."""


def main(source: Path, target: Path, chosen: list[str]) -> None:
    unknown = sorted(set(chosen) - TASKS.keys())
    if unknown:
        sys.exit(f"no task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    here = [task for task, (folder, _) in TASKS.items() if (source / folder).is_dir()]
    if missing := sorted(set(chosen) - set(here)):
        sys.exit(f"{source} has no folder {', '.join(TASKS[task][0] for task in missing)}")
    for task in chosen or here:
        folder, read = TASKS[task]
        for split, examples in read(source / folder).items():
            path = target / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(example, ensure_ascii=False) + "\n" for example in examples]
            path.write_text("".join(lines), encoding="utf-8")
            print(f"{task:<16}{split:<12}{len(examples):>9,} examples")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
