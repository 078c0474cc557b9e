"""Factor between a closed form and the time of real training steps. Must not import jax.

A chip's matmuls and its traffic to memory take turns more often than they overlap, kernels attain
a part of the peak, and some collectives are waited for. What is left is nearly one factor for
programs of one kind: a chip, and how much is recomputed.
"""

import dataclasses
import math
from collections.abc import Sequence

from gpt_jax.cost import hardware

RECOMPUTING = ("full", "offload")
"""Values of compute.remat that recompute whole layers."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A step that somebody ran and timed."""

    name: str
    chip: str
    remat: str
    closed_form: float
    """Seconds: `Plan.in_turn_seconds`."""
    seconds: float

    @property
    def ratio(self) -> float:
        """Measured over closed form."""
        return self.seconds / self.closed_form


@dataclasses.dataclass(frozen=True)
class Factor:
    """Measured over closed form, of several steps."""

    mean: float
    """Geometric."""
    least: float
    most: float
    n_rows: int
    of: str
    """Which steps they are, if not of the same chip and kind; else empty."""

    @property
    def shown(self) -> str:
        """programs of this kind took 1.41 to 1.5 times the closed form: 5 rows"""
        whose = self.of or "programs of this kind"
        if self.n_rows == 1:
            return f"{whose} took {self.mean:.2f} times the closed form: 1 row"
        between = f"{self.least:.2f} to {self.most:.2f}"
        return f"{whose} took {between} times the closed form: {self.n_rows} rows"


def factor(chip: str, remat: str, rows: Sequence[Measured]) -> Factor:
    """The factor of steps like these.

    Of the same chip and kind; where there are none, of the chip; else of other chips of its maker:
    `Factor.of` says so.
    """
    backend = hardware.chip(chip).backend
    of_chip = [row for row in rows if row.chip == chip]
    like = [row for row in of_chip if kind(row.remat) == kind(remat)]
    if like:
        return _of(like, "")
    short = chip.removeprefix("tpu_")
    if of_chip:
        return _of(of_chip, f"no row of {short} is of this kind; its others")
    others = [row for row in rows if hardware.chip(row.chip).backend == backend]
    names = ", ".join(sorted({row.chip.removeprefix("tpu_") for row in others}))
    return _of(others, f"no row is of {short}; those of {names}")


def kind(remat: str) -> str:
    """full: whole layers are recomputed; dots: less or nothing is."""
    return "full" if remat in RECOMPUTING else "dots"


def _of(rows: Sequence[Measured], of: str) -> Factor:
    ratios = [row.ratio for row in rows]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return Factor(mean, min(ratios), max(ratios), len(rows), of)


def held_out(row: Measured, rows: Sequence[Measured]) -> float | None:
    """Seconds of a step by the factor of the others of its chip and kind; None without others."""
    others = [
        other
        for other in rows
        if other is not row and other.chip == row.chip and kind(other.remat) == kind(row.remat)
    ]
    return row.closed_form * _of(others, "").mean if others else None
