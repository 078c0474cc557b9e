"""Published numbers beside ours, from the documents of a check's commands. Must not import jax."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from gpt_jax.published.compare import Cell, Comparison, Row, compare, number
from gpt_jax.published.fits import verdict_of_fit
from gpt_jax.published.runs.entry import TABLE, Check, Document, Number, RunsEntry


@dataclass(frozen=True)
class Checked:
    """A check's commands with their files in place, and what came out."""

    check: Check
    commands: tuple[tuple[str, ...], ...]
    cells: tuple[Cell, ...]


def filled(command: Sequence[str], table: Path) -> tuple[str, ...]:
    """A command with the table's file, and files beside it, in place of their names."""
    stem = str(table.with_suffix(""))
    return tuple(
        str(table) if word == TABLE else word.replace(TABLE, stem, 1)
        if word.startswith(f"{TABLE}.") else word
        for word in command
    )  # fmt: skip


def cell_of(number: Number, documents: Sequence[Document]) -> Cell:
    """A published number beside ours, with its verdict."""
    ours = number.pick(documents)
    printed = Decimal(number.printed)
    if number.computed:
        return compare(number.name, printed, ours.value)
    shown = _short(ours.value)
    if ours.interval is not None:
        low, high = (("open" if edge is None else _short(edge)) for edge in ours.interval)
        shown = f"{shown} [{low}, {high}]"
    verdict = verdict_of_fit(float(printed), ours.value, _edges(ours.interval), ours.warnings)
    return Cell(number.name, number.printed, shown, verdict)


def _edges(interval: Sequence[float | None] | None) -> Sequence[float | None] | None:
    """None for no interval, or one of no finite edge."""
    if interval is None or all(edge is None for edge in interval):
        return None
    return interval


def _short(value: float) -> str:
    return number(float(f"{value:.5g}"))


def comparison(entry: RunsEntry, checked: Sequence[Checked]) -> Comparison:
    """All checks of a table as one comparison."""
    rows = tuple(Row(one.check.title or one.check.where, one.cells) for one in checked)
    where = "; ".join(dict.fromkeys(one.check.where for one in checked))
    notes = [f"verified when the entry was made: {entry.verified}", *entry.notes]
    return Comparison(
        f"{entry.name}: {entry.title}",
        f"{entry.authors} (arXiv {entry.paper}), {where}",
        "ours: refitted to their runs by the commands below; intervals 95%",
        rows,
        notes=tuple(notes),
    )


def to_json(entry: RunsEntry, checked: Sequence[Checked]) -> dict[str, Any]:
    """Plain values."""
    return {
        "name": entry.name,
        "paper": entry.paper,
        "checks": [
            {
                "title": one.check.title,
                "where": one.check.where,
                "commands": [["gpt-jax", *command] for command in one.commands],
                "numbers": [
                    {"name": c.name, "printed": c.printed, "ours": c.ours, "verdict": c.verdict}
                    for c in one.cells
                ],
            }
            for one in checked
        ],
    }
