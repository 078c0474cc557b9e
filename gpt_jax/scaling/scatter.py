"""Whether the residuals of a fit scatter equally over its runs.

Must not import jax.
"""

from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.fit import LawFit
from gpt_jax.scaling.uncertainty import EXACT

FEWEST_RUNS = 12
"""Four in each third of a variable."""
CHANCE = 0.01
"""Probability, if scatter were equal, of residuals this uneven; below it the user is told."""


@dataclass(frozen=True)
class UnequalScatter:
    """Residuals whose size changes along a variable of the law."""

    variable: str
    thirds: tuple[float, float, float]
    """Standard deviations of log residuals, from the variable's smallest third to its largest"""
    chance: float
    """Probability of residuals this uneven if scatter were equal"""


def unequal_scatter(fit: LawFit) -> UnequalScatter | None:
    """A score test of the residuals' sizes against the law's variables; none where they are even.

    The size of residuals, not their square, is regressed on the log variables, so that single
    outliers do not decide (Glejser 1969, with Koenker's n R^2); of several variables the one with
    the strongest correlation is named.
    """
    residual = fit.problem.residuals(fit.theta)
    size = np.abs(residual)
    if residual.size < max(FEWEST_RUNS, 2 * fit.theta.size) or size.max() < EXACT:
        return None
    from scipy.special import chdtrc

    names = fit.law.variables
    columns = np.stack([fit.problem.x[name] for name in names], 1)
    known = np.isfinite(columns).all(0)
    names = tuple(name for name, there in zip(names, known, strict=True) if there)
    columns = columns[:, known]
    if not names:
        return None
    columns = columns[:, np.ptp(columns, axis=0) > 0]
    centered, target = columns - columns.mean(0), size - size.mean()
    slopes = np.linalg.lstsq(centered, target, rcond=None)[0]
    explained = ((centered @ slopes) ** 2).sum() / (target**2).sum()
    chance = float(chdtrc(columns.shape[1], residual.size * explained))
    if chance >= CHANCE:
        return None
    strength = [abs(np.corrcoef(fit.problem.x[name], size)[0, 1]) for name in names]
    variable = names[int(np.nanargmax(strength))]
    thirds = np.array_split(residual[np.argsort(fit.problem.x[variable], kind="stable")], 3)
    small, middle, large = (float(np.sqrt((part**2).mean())) for part in thirds)
    return UnequalScatter(variable, (small, middle, large), chance)
