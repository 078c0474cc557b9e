"""Evaluations of OLMo's ladder, its 7B and 13B. Must not import jax."""

import re
from collections.abc import Sequence
from typing import Any

from gpt_jax.published.runs.entry import (
    FILE,
    TABLE,
    Cell,
    Check,
    Columns,
    Document,
    File,
    Form,
    Number,
    Record,
    RunsEntry,
    Value,
    raw,
)

_REPOSITORY = "allenai/OLMo-ladder"
_COMMIT = "67a3f440f787d020da35e3ca8eeae475fae754f5"
_FOLDER = "src/scripts/paper/data/ladder-runs"
_FILES = (
    *(f"{size}-{length}xC" for size in ("190M", "370M", "760M", "1B") for length in (1, 2, 5, 10)),
    "peteish7_eval_anneal",
    "peteish13_eval_final",
)
_N_PARAMS = {
    "190M-": 190354176,
    "370M-": 371262464,
    "760M-": 758220288,
    "1B-": 1279395840,
    "peteish7_": 6887575552,
    "peteish13_": 13202396160,
}
_FLOPS_PER_TOKEN = {
    "190M-*": 1903391232,
    "370M-*": 3443922944,
    "760M-*": 6373843968,
    "1B-*": 10109071360,
    "peteish13*": 91335915520,
}
_TASKS = {
    "HellaSwag": "hellaswag_val",
    "ARC-C": "arc_challenge_test",
    "ARC-E": "arc_easy_test",
    "PIQA": "piqa_val",
    "CSQA": "csqa_val",
    "Social IQa": "socialiqa_val",
    "OpenBookQA": "openbookqa_test",
}
_MMLU = {"stem": 0.215, "humanities": 0.335, "social_sciences": 0.219, "other": 0.231}
"""Shares of MMLU's four parts in its mean."""
_CHAINED = {
    "MMLU": (".51268", ".48343"),
    "HellaSwag": (".85304", ".81413"),
    "ARC-C": (".52671", ".57439"),
    "ARC-E": (".77242", ".79957"),
    "PIQA": (".82080", ".82024"),
    "CSQA": (".77609", ".77717"),
    "Social IQa": (".59948", ".58100"),
    "OpenBookQA": (".44865", ".47035"),
}
"""Column Pred of chained_main.csv and chained_flops_main.csv."""
_BPB = re.compile(r"(?:eval/)?downstream_bpb/(.+)_bpb")
_SCORE = re.compile(r"(?:eval/)?downstream/(.+)")
_C4 = ("loss_c4", "eval/c4_en-validation/CrossEntropyLoss")
_TOKENS = ("n_tokens", "throughput/total_tokens")
_RATE = ("learning_rate", "optim/learning_rate_group0")


def _n_params(record: Record) -> int | None:
    sizes = (n for start, n in _N_PARAMS.items() if str(record["run"]).startswith(start))
    return next(sizes, None)


def _tokens(record: Record) -> float:
    return float(record["_step"]) * float(record["batch_size_in_tokens"])


def _named(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The run of a row from the name of its file."""
    for record in records:
        record.setdefault("run", str(record[FILE]).removesuffix(".csv"))
        record.setdefault("step", record.get("_step"))
    return records


def _columns(names: Sequence[str]) -> Columns:
    def first(options: Sequence[str]) -> str | None:
        return next((name for name in options if name in names), None)

    columns: dict[str, Cell] = {
        "run": "run",
        "step": "step",
        "n_params": _n_params,
        "n_tokens": first(_TOKENS) or _tokens,
        "loss_c4": first(_C4) or _C4[1],
    }
    rate = first(_RATE)
    columns |= {"learning_rate": rate} if rate else {}
    for name in names:
        if match := _BPB.fullmatch(name):
            columns[f"bits_per_byte_{match[1]}"] = name
        elif match := _SCORE.fullmatch(name):
            columns[f"score_{match[1]}"] = name
    return columns


def _spec() -> dict[str, Any]:
    """Chain of the paper's main figure, for `gpt-jax fit chain --spec`."""
    parts = {part: f"mmlu_{part}_test_rc_5shot" for part in _MMLU}
    tasks = {
        "MMLU": {
            "loss": {f"bits_per_byte_{parts[k]}": weight for k, weight in _MMLU.items()},
            "score": {f"score_{parts[k]}_len_norm": weight for k, weight in _MMLU.items()},
        }
    } | {
        task: {
            "loss": f"bits_per_byte_{name}_rc_5shot",
            "score": f"score_{name}_rc_5shot_len_norm",
        }
        for task, name in _TASKS.items()
    }
    return {
        "fitted": ["*-1xC", "*-2xC", "*-5xC", "*-10xC"],
        "target": "peteish13_eval_final",
        "flops_per_token": _FLOPS_PER_TOKEN,
        "average": 5,
        "skip": 0.1,
        "link": "sigmoid",
        "tasks": tasks,
    }


def _predicted(task: str, what: str, printed: str) -> Number:
    def pick(documents: Sequence[Document]) -> Value:
        chain = next(chain for chain in documents[0]["chains"] if chain["task"] == task)
        return Value(chain["predictions"][what]["value"])

    how = {"score": "chained", "score_by_flops": "by FLOPs"}[what]
    return Number(f"{task}, {how}", printed, pick, computed=True)


ENTRY = RunsEntry(
    name="olmo-ladder",
    title="evaluations of 190M to 1B models at 1 to 10 x Chinchilla, and of 7B and 13B",
    authors="Bhagia et al. 2024",
    paper="2412.04403",
    licence="Apache-2.0",
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            tuple(
                File(f"{name}.csv", raw(_REPOSITORY, _COMMIT, f"{_FOLDER}/{name}.csv"))
                for name in _FILES
            ),
            _columns,
            _named,
            "the 18 files of the paper's main figure",
        ),
        Form(
            (
                File(
                    "olmo_ladder.csv.gz",
                    sha256="b17b1127de6fd80f12cc4c468277b546cd332d443bfb951f102fb1c9305ddb11",
                ),
            ),
            _columns,
            _named,
            "all evaluations in one file",
        ),
    ),
    constants={
        "convention": "N as in the authors' configs, D tokens seen",
    },
    rows=2827,
    verified="rows, columns and fits from the copy in one file; paths of the authors' files from "
    "configs/final.json, columns from a file of the same repository; those files were not opened",
    checks=(
        Check(
            (("fit", "chain", TABLE, "--spec", "TABLE.chain.json", "--bootstrap", "0"),),
            tuple(
                _predicted(task, what, printed)
                for k, what in enumerate(("score", "score_by_flops"))
                for task, printed in ((name, pair[k]) for name, pair in _CHAINED.items())
            ),
            "src/scripts/paper/figures/chained_main.csv, chained_flops_main.csv",
            "accuracy of the 13B, predicted",
        ),
    ),
    files={".chain.json": _spec()},
)
