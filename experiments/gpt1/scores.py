"""GPT-1's tables 2 to 4 beside the scores of our fine-tuned runs.

python experiments/gpt1/scores.py                  the tables, with ours of scores.json
python experiments/gpt1/scores.py collect runs     scores.json, of the finished runs/gpt1_*
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from gpt_jax.published.compare import load

SCORES = Path(__file__).resolve().parent / "scores.json"
Scores = dict[str, dict[str, Any]]
"""{row of the paper's table: score in percent, examples, fingerprint of the run}."""


class Row(NamedTuple):
    """Where the number of a row of a table is found."""

    task: str
    """Of configs/gpt1_TASK.py."""
    metric: str
    split: str = "development"
    """Which set of the owner's our test is: GLUE's test labels are not public."""
    part: str = ""
    """Of the test, by its records' field `part`; empty = all."""


TABLES: dict[str, tuple[str, dict[str, Row]]] = {
    "table_2_nli_accuracy": (
        "Table 2: inference",
        {
            "MNLI-m": Row("mnli", "accuracy", part="matched"),
            "MNLI-mm": Row("mnli", "accuracy", part="mismatched"),
            "SNLI": Row("snli", "accuracy", "test"),
            "SciTail": Row("scitail", "accuracy", "test"),
            "QNLI": Row("qnli", "accuracy"),
            "RTE": Row("rte", "accuracy"),
        },
    ),
    "table_3_qa_accuracy": (
        "Table 3: question answering and common sense",
        {
            "Story Cloze": Row("storycloze", "accuracy", "test"),
            "RACE-m": Row("race", "accuracy", "test", "middle"),
            "RACE-h": Row("race", "accuracy", "test", "high"),
            "RACE": Row("race", "accuracy", "test"),
        },
    ),
    "table_4": (
        "Table 4: classification and similarity",
        {
            "CoLA (mcc)": Row("cola", "matthews"),
            "SST-2 (acc)": Row("sst2", "accuracy"),
            "MRPC (F1)": Row("mrpc", "f1"),
            "STS-B (pearson)": Row("stsb", "pearson"),
            "QQP (F1)": Row("qqp", "f1"),
        },
    ),
}
"""By the table's name in gpt_jax/published/data/gpt1.json."""


def collect(runs: Path) -> Scores:
    """Of every row whose run is done."""
    found: Scores = {}
    for _, rows in TABLES.values():
        for name, row in rows.items():
            run = runs / f"gpt1_{row.task}"
            if (run / "result.json").is_file():
                found[name] = score(run, row)
    return found


def score(run: Path, row: Row) -> dict[str, Any]:
    """Of a finished run. Raises ValueError if it has no test, or none of that part."""
    result = json.loads((run / "result.json").read_text())
    if "test_examples" not in result:
        raise ValueError(f"{run} has no test; set task.test and run gpt-jax finetune again")
    value, n = result[f"test_{row.metric}"], result["test_examples"]
    if row.part:
        lines = (run / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines if line]
        right = [r["label"] == r["predicted"] for r in records if r.get("part") == row.part]
        if not right:
            raise ValueError(f"{run}/predictions.jsonl has no examples of {row.part}")
        value, n = sum(right) / len(right), len(right)
    return {"score": 100 * value, "examples": n, "fingerprint": result["fingerprint"]}


def tables(ours: Scores) -> str:
    """The three tables as Markdown."""
    paper, lines = load("gpt1"), []
    for key, (title, rows) in TABLES.items():
        lines += [f"**GPT-1, {title}** ({paper['paper']}). Percent.", ""]
        lines += [
            "| | score | paper | ours | on | config | state |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, printed in paper[key].items():
            lines.append(line(name, printed, rows.get(name), ours.get(name)))
        lines.append("")
    return "\n".join(lines)


def line(name: str, printed: Any, row: Row | None, ours: dict[str, Any] | None) -> str:
    """A row of a table."""
    if row is None:  # an average over tasks that are not in the tables, by GLUE's server
        return f"| {name} | average | {printed} | missing | | | needs GLUE's server |"
    config = f"`configs/gpt1_{row.task}.py`"
    begin = f"| {name} | {row.metric} | {printed} "
    if ours is None:
        return f"{begin}| missing | {row.split} | {config} | ready to run |"
    where = f"{row.split}, {ours['examples']:,}"
    return f"{begin}| {ours['score']:.1f} | {where} | {config} | run {ours['fingerprint']} |"


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "collect":
        try:
            found = collect(Path(arguments[1]))
        except ValueError as error:
            print(f"scores.py: {error}", file=sys.stderr)
            return 2
        SCORES.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{len(found)} scores in {SCORES}")
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    print(tables(json.loads(SCORES.read_text()) if SCORES.is_file() else {}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
