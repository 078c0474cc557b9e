"""The table of runs on a sweep's page, which `page.js` sorts and filters. Must not import jax."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gpt_jax.runs.tracking import format_seconds
from gpt_jax.sweep.page_numbers import scientific
from gpt_jax.sweep.status import label
from gpt_jax.sweep.table import FINAL, TRUNK, Row, cell

Formatter = Callable[[Any], str]

ALWAYS = ("run", "state", "n_params", "n_tokens", "flops", "loss")
"""Shown even if all rows agree."""
FIRST = ("run", "state", "loss", "loss_standard_error", "cooled", "point")
SHOWN = (
    "n_params", "n_tokens", "flops", "bits_per_byte", "train_loss", "n_steps",
    "n_steps_left_out", "batch_tokens",
    "learning_rate", "seed", "tokenizer", "vocab_size", "corpus", "training_seconds", "fingerprint",
    "commit",
)  # fmt: skip
"""Columns of runs.csv that are shown after the first ones and the varied keys."""
NAMES = {
    "loss_standard_error": "std. error",
    "n_steps_left_out": "steps left out",
    "training_seconds": "time",
}
POINTS = {FINAL: "end", TRUNK: "before decay"}


class Column(NamedTuple):
    """A column of the page's table."""

    key: str
    label: str
    is_text: bool


class Cell(NamedTuple):
    """A value in full, and as it is shown."""

    column: Column
    value: str
    shown: str


class RunRow(NamedTuple):
    """A run; a missing value is None."""

    cells: list[Cell | None]
    is_best: bool


class RunTable(NamedTuple):
    """The table, and what all runs have in common: (name, value)."""

    common: list[tuple[str, str]]
    columns: list[Column]
    rows: list[RunRow]


def draw_runs(rows: Sequence[Row], varied: Sequence[str]) -> RunTable:
    """The table of runs as it is shown."""
    shown, common = _columns(rows, varied)
    columns = [
        Column(name, NAMES.get(name, _label(name, shown)), not _is_numeric(rows, name))
        for name in shown
    ]
    finished = [row["loss"] for row in rows if row["loss"] is not None and row["cooled"]]
    best = min(finished, default=None)
    drawn = [
        RunRow(
            [_cell(row, column) for column in columns],
            row["loss"] is not None and row["loss"] == best and bool(row["cooled"]),
        )
        for row in rows
    ]
    known = [name for name in common if rows[0][name] is not None]
    return RunTable(
        [(NAMES.get(name, name), _show(name, rows[0][name])) for name in known], columns, drawn
    )


def _columns(rows: Sequence[Row], varied: Sequence[str]) -> tuple[list[str], list[str]]:
    """(columns to show, columns in which all rows agree). One that repeats another is left out."""
    shown, common, seen = [], [], set()
    for name in dict.fromkeys([*FIRST, *varied, *SHOWN]):
        values = tuple(cell(row[name]) for row in rows)
        if name not in ALWAYS and len(set(values)) == 1:
            common.append(name)
        elif name in ALWAYS or values not in seen:
            shown.append(name)
            seen.add(values)
    return shown, common


def _label(name: str, shown: Sequence[str]) -> str:
    """Without the section of the config, where that leaves no doubt."""
    last = name.rsplit(".", 1)[-1]
    return name if sum(other.rsplit(".", 1)[-1] == last for other in shown) > 1 else last


def _cell(row: Row, column: Column) -> Cell | None:
    value = row[column.key]
    return None if value is None else Cell(column, cell(value), _show(column.key, value))


def _show(name: str, value: Any) -> str:
    formatters: dict[str, Formatter] = {
        "point": lambda v: POINTS[v],
        "state": label,
        "cooled": lambda v: "yes" if v else "no",
        "flops": lambda v: scientific(v, 3),
        "training_seconds": format_seconds,
        **dict.fromkeys(("loss", "loss_standard_error", "bits_per_byte", "train_loss"), _decimals),
    }
    return formatters.get(name, _plain)(value)


def _decimals(value: float) -> str:
    return f"{value:.4f}"


def _plain(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < 1e15 else scientific(value, 3)
    if isinstance(value, float):
        return scientific(value, 3) if abs(value) >= 1e6 else f"{value:.4g}"
    return cell(value)


def _is_numeric(rows: Sequence[Row], name: str) -> bool:
    values = [row[name] for row in rows if row[name] is not None]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
