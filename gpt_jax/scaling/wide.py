"""Tables of any columns: numbers by the column's own name, for laws of scores, curves and mixtures.

Must not import jax.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt_jax.hints import did_you_mean
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.table import MISSING
from gpt_jax.storage import tables


@dataclass(frozen=True)
class Wide:
    """Rows of a file, read column by column."""

    path: str
    columns: tuple[str, ...]
    rows: list[tables.Row]

    def require(self, column: str, option: str) -> None:
        """Raise ValueError where the file has no such column."""
        if column not in self.columns:
            hint = did_you_mean(column, self.columns)
            shown = ", ".join(self.columns[:12]) + (", ..." if len(self.columns) > 12 else "")
            raise ValueError(f"{self.path} has no column '{column}' ({option}): {shown}{hint}")

    def labels(self, column: str, option: str) -> list[str]:
        self.require(column, option)
        return ["" if (v := row.get(column)) is None else str(v).strip() for row in self.rows]

    def numbers(self, column: str, option: str) -> Array:
        """(R), nan where the cell says that there is none; raises ValueError by line."""
        self.require(column, option)
        return np.array([_number(row.get(column), column, row.where) for row in self.rows])

    def where(self, column: str, value: str) -> "Wide":
        """Rows with this text in this column."""
        keep = [t == value for t in self.labels(column, "--where")]
        rows = [row for row, kept in zip(self.rows, keep, strict=True) if kept]
        if not rows:
            raise ValueError(f"--where {column}={value}: {self.path} has no such row")
        return Wide(self.path, self.columns, rows)


def read_wide(path: str, where: Sequence[tuple[str, str]] = ()) -> Wide:
    """The rows of a CSV, TSV or JSON lines file that hold all texts of `where`."""
    table = tables.read(Path(path), default=".csv")
    if not table.rows:
        raise ValueError(f"{path} has no rows")
    columns = table.columns or tuple(dict.fromkeys(name for row in table.rows for name in row))
    wide = Wide(path, columns, table.rows)
    for column, value in where:
        wide = wide.where(column, value)
    return wide


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name fits one of several patterns with * and ?."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def by_pattern(name: str, values: Mapping[str, float]) -> float:
    """The value of the first pattern that a name fits; nan without any."""
    return next((v for pattern, v in values.items() if matches(name, [pattern])), float("nan"))


def _number(cell: object, column: str, where: str) -> float:
    text = str("" if cell is None else cell).strip()
    if text.lower() in MISSING:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}, column {column}: '{text}' is not a number") from None
