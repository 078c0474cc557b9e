"""Printed numbers and how ours compare with them.

What can be computed matches within the rounding of the printed digits or differs by x. What was
fitted agrees within x, lies inside our interval that is too wide to tell, or differs by x.

Must not import jax.
"""

import csv
import json
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any

FLOPS_PER_PF_DAY = Decimal(10) ** 15 * 24 * 3600


@dataclass(frozen=True)
class Cell:
    """One quantity of a table's row."""

    name: str
    printed: str
    ours: str
    verdict: str
    """matches (+-tolerance) | agrees within x% | inside our interval of +-x% (too wide to tell) |
    differs by x | not comparable because ..."""


@dataclass(frozen=True)
class Row:
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """A paper's table beside ours."""

    title: str
    paper: str
    conventions: str
    """Meaning of N, D, C and of the column `ours` in this comparison."""
    rows: tuple[Row, ...]
    oddities: tuple[str, ...] = ()
    """Inconsistencies in the paper's numbers: reported, not corrected."""
    notes: tuple[str, ...] = ()
    """Notes on our numbers: state of the comparison, runs, conventions, warnings."""


def load(name: str) -> dict[str, Any]:
    """A paper's data file; numbers are Decimals, so that the printed digits are known."""
    text = (resources.files(__package__) / "data" / f"{name}.json").read_text()
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def load_rows(name: str) -> list[dict[str, int]]:
    """A table of whole numbers."""
    text = (resources.files(__package__) / "data" / f"{name}.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    return [{column: int(value) for column, value in row.items()} for row in rows]


def half_unit(printed: Decimal) -> float:
    """Half a unit of the last printed digit: the largest error of rounding."""
    exponent = printed.as_tuple().exponent
    assert isinstance(exponent, int), printed
    return 0.5 * 10.0**exponent


def rounding(*printed: Decimal) -> float:
    """Relative error that rounding may have left in a product of printed numbers."""
    return sum(half_unit(p) / abs(float(p)) for p in printed)


def compare(name: str, printed: Decimal, ours: float, slack: float = 0.0) -> Cell:
    """Ours matches if it rounds to the printed digits; the verdict says how far it may lie.

    slack: relative error that ours may have because it is made from rounded numbers itself.
    """
    reference = float(printed)
    allowed = half_unit(printed) + slack * abs(ours)
    if abs(ours - reference) <= allowed * (1 + 1e-9):
        verdict = f"matches (+-{allowed:.3g})"
    else:
        verdict = f"differs by {100 * (ours / reference - 1):+.3g}%"
    return Cell(name, number(reference), number(ours), verdict)


def not_comparable(name: str, printed: Decimal | str, reason: str) -> Cell:
    """A printed number beside which we have none."""
    shown = printed if isinstance(printed, str) else number(float(printed))
    return Cell(name, shown, "missing", f"not comparable because {reason}")


def number(value: float) -> str:
    """Whole numbers below a trillion in full, others to six digits."""
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:.6g}"


def text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    lines = [comparison.title, f"{comparison.paper}", comparison.conventions, ""]
    table = [("", "", "paper", "ours", "")]
    for row in comparison.rows:
        for k, cell in enumerate(row.cells):
            label = row.label if k == 0 else ""
            table.append((label, cell.name, cell.printed, cell.ours, cell.verdict))
    widths = [max(len(line[k]) for line in table) for k in range(4)]
    for label, name, printed, ours, verdict in table:
        lines.append(
            f"{label:{widths[0]}}  {name:{widths[1]}}  {printed:>{widths[2]}}  "
            f"{ours:>{widths[3]}}  {verdict}".rstrip()
        )
    lines += ["", *(f"oddity: {oddity}" for oddity in comparison.oddities), *comparison.notes]
    return "\n".join(lines).rstrip()


def markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown table: the paper's, ours, what differs."""
    lines = [f"**{comparison.title}** ({comparison.paper}). {comparison.conventions}.", ""]
    lines += ["| | | paper | ours | what differs |", "|---|---|---|---|---|"]
    for row in comparison.rows:
        for k, cell in enumerate(row.cells):
            shown = (row.label if k == 0 else "", cell.name, cell.printed, cell.ours, cell.verdict)
            lines.append("| " + " | ".join(text.replace("|", "/") for text in shown) + " |")
    said = [f"Oddity: {oddity}" for oddity in comparison.oddities]
    said += [" ".join(note.split()) for note in comparison.notes]
    return "\n".join([*lines, "", *(f"- {line}" for line in said)]).rstrip()
