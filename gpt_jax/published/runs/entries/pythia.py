"""Evaluations of Pythia over its checkpoints. Must not import jax."""

from collections.abc import Sequence
from typing import Any

from gpt_jax.published.runs.entry import FILE, Columns, File, Form, RunsEntry, raw

_REPOSITORY = "EleutherAI/pythia"
_COMMIT = "4d0c90183683435b20890cabca52783c3b820d3c"
_SIZES = {
    "70m": (70426624, 18915328),
    "160m": (162322944, 85056000),
    "410m": (405334016, 302311424),
    "1.4b": (1414647808, 1208602624),
    "2.8b": (2775208960, 2517652480),
    "6.9b": (6857302016, 6444163072),
    "12b": (11846072320, 11327027200),
}
"""{name: parameters, those without embeddings}"""
_STEPS = (1000, *range(3000, 144000, 10000))
_TOKENS_PER_STEP = 2097152


def _name(size: str, step: int) -> str:
    return f"{size}_step{step}.json"


def _flat(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracies beside the size and step, which are the file's name."""
    flat = []
    for record in records:
        size, _, step = str(record[FILE]).removesuffix(".json").partition("_step")
        row: dict[str, Any] = {
            "run": f"pythia-{size}",
            "step": int(step),
            "n_tokens": int(step) * _TOKENS_PER_STEP,
            "n_params": _SIZES[size][0],
            "n_params_non_embedding": _SIZES[size][1],
        }
        for task, scores in record["results"].items():
            if "acc" in scores:
                row[f"score_{task}"] = scores["acc"]
        flat.append(row)
    return flat


def _columns(names: Sequence[str]) -> Columns:
    return {name: name for name in names}


ENTRY = RunsEntry(
    name="pythia",
    title="zero-shot accuracies of 70M to 12B models over their checkpoints",
    authors="Biderman et al. 2023",
    paper="2304.01373",
    licence="Apache-2.0",
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            tuple(
                File(
                    _name(size, step),
                    raw(
                        _REPOSITORY,
                        _COMMIT,
                        f"evals/pythia-v1/pythia-{size}/zero-shot/{_name(size, step)}",
                    ),
                )
                for size in _SIZES
                for step in _STEPS
            ),
            _columns,
            _flat,
        ),
    ),
    constants={
        "convention": "N all parameters, D tokens seen: steps of 2,097,152",
        "corpus": "the Pile",
        "tokenizer": "GPT-NeoX",
    },
    rows=len(_SIZES) * len(_STEPS),
    verified="the form of one file; names follow those of the repository's list, in which some of "
    "the 112 are; the 1B model's were not in it and are left out",
    no_check="the paper fits no law to these scores",
)
