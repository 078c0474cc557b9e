"""The one schema of published tables of runs: names of columns, their meaning, and the check.

Names that `gpt-jax fit` knows are the same here, so that it reads such a table as it is. Must not
import jax.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FIXED = {
    "run": "name of the run",
    "split": "train or test, where the authors hold runs out",
    "group": "group of runs that a law is fitted to by itself",
    "step": "optimizer steps at this row",
    "n_params": "parameters N by the table's convention",
    "n_params_non_embedding": "parameters without embeddings",
    "n_params_non_vocab": "parameters without those of the vocabulary",
    "n_params_vocab": "parameters of the vocabulary",
    "n_params_total": "parameters of all experts together",
    "n_experts": "experts that a routed layer chooses from, 1 where it is dense",
    "n_tokens": "training tokens D",
    "n_characters": "training characters",
    "unique_tokens": "distinct training tokens U",
    "flops": "training compute C",
    "loss": "nats per token, the loss that is fitted",
    "unigram_normalised_loss": "loss less that of the tokens' own frequencies",
    "learning_rate": "learning rate: peak of a run, current in a curve",
    "batch_tokens": "tokens in a batch",
    "schedule": "learning-rate schedule",
    "seed": "seed of the run",
    "vocab_size": "entries of the vocabulary",
    "corpus": "training corpus",
    "tokenizer": "tokenizer",
    "convention": "meaning of N, D and C in this table",
}
"""Columns that a table may have, in order."""
FAMILIES = {
    "loss_": "loss on a named set",
    "bits_per_byte_": "bits per byte of a task's answers",
    "score_": "score on a task",
    "share_": "share of a domain in training, 0 to 1",
    "setting_": "anything else that was varied, in the authors' words",
}
"""Prefixes of further columns."""
TEXTS = ("run", "split", "group", "schedule", "seed", "corpus", "tokenizer", "convention")
"""Columns that are no numbers; settings may be either."""
REQUIRED = ("run", "convention")
MEASURED = ("loss", "unigram_normalised_loss")
"""A table has one of these, or a column of the first three families."""


@dataclass(frozen=True)
class RunsTable:
    """A table in the schema."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Texts; an empty one is a missing value."""


def in_order(names: Sequence[str]) -> list[str]:
    """Fixed columns in the schema's order, then those of families as they come."""
    fixed = [name for name in FIXED if name in names]
    return fixed + [name for name in names if name not in FIXED]


def text_of(value: Any) -> str:
    """A cell as it is written: the authors' digits, or the shortest that give a number back."""
    if value is None:
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else repr(value)
    text = str(value).strip()
    return "" if text.lower() == "nan" else text


def check(table: RunsTable, name: str) -> None:
    """Raise ValueError, naming the row and column, where a table is not in the schema."""
    wrong = [
        column
        for column in table.columns
        if column not in FIXED and not column.startswith(tuple(FAMILIES))
    ]
    if wrong:
        raise ValueError(f"{name}: the schema has no column {', '.join(wrong)}")
    missing = [column for column in REQUIRED if column not in table.columns]
    if missing:
        raise ValueError(f"{name}: the table lacks {', '.join(missing)}")
    measured = [
        k
        for k, column in enumerate(table.columns)
        if column in MEASURED or column.startswith(tuple(FAMILIES)[:3])
    ]
    numbers = [
        k
        for k, column in enumerate(table.columns)
        if column not in TEXTS and not column.startswith("setting_")
    ]
    for at, row in enumerate(table.rows, 1):
        for k in numbers:
            if row[k] and not _is_number(row[k]):
                raise ValueError(
                    f"{name}, row {at}, column {table.columns[k]}: '{row[k]}' is not a number"
                )
        for column in REQUIRED:
            if not row[table.columns.index(column)]:
                raise ValueError(f"{name}, row {at}: no {column}")
        if not any(row[k] for k in measured):
            raise ValueError(f"{name}, row {at}: neither a loss nor a score")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
