"""Power laws through optima, shared by the approaches that find optima first.

Must not import jax.
"""

import functools
from dataclasses import dataclass, field

import numpy as np

from gpt_jax.scaling.catalog import LAWS, LawEntry, build_law
from gpt_jax.scaling.fit import Extrapolation
from gpt_jax.scaling.frontier import Frontier, power_frontier
from gpt_jax.scaling.laws import Array, PowerSum, symbols_of
from gpt_jax.scaling.minimise import minimise
from gpt_jax.scaling.profiles import polynomial, stationary
from gpt_jax.scaling.table import RunTable, make_table
from gpt_jax.scaling.uncertainty import percentiles

ENOUGH_FOR_IRREDUCIBLE = 4
"""Budgets from which L(C) is given an irreducible loss: one more than its three parameters."""

MOST_LOSSES = 50
"""Fitting L(C) thins an envelope's many computes, which repeat each other, to about this number."""
HELD_OUT_RANGE = 0.25
"""Upper share of the range of log compute that is predicted from the rest."""


@dataclass(frozen=True)
class OptimaFit:
    """Optima at several computes and the power law through them, in F versions (row 0: the fit)."""

    entry: LawEntry
    runs: RunTable
    log_compute: Array
    """(M)"""
    log_optimum: Array
    """(F, M) of the varied quantity; nan where a version has none"""
    log_loss: Array
    """(F, M) at the optimum"""
    coefficients: Array
    """(F, 2): log optimum = first + second log C"""
    objective: float
    cost: float
    warnings: tuple[str, ...] = ()
    profiles: tuple["Profile", ...] = field(default=())
    """The parabolas, for IsoFLOP."""
    window: float | None = None
    """IsoFLOP: factor around its minimum from which a parabola takes sizes."""
    check: "Check | None" = None
    """IsoFLOP: the exponent by another local fit, where there are sizes enough for it."""

    @property
    def samples(self) -> dict[str, Array]:
        """{symbol: (F)}"""
        log_k, power = self.coefficients.T
        if self.entry.varied != "n_params":
            return {"k": np.exp(log_k), "m": power}
        with np.errstate(over="ignore"):
            k_n, k_d = np.exp(log_k), np.exp(-log_k) / self.cost
        return {"a": power, "b": 1 - power, "k_N": k_n, "k_D": k_d}

    @property
    def parameters(self) -> dict[str, float]:
        """a, b, k_N, k_D: N_opt = k_N C^a, D_opt = k_D C^b; else k, m: optimum = k C^m."""
        return {name: float(values[0]) for name, values in self.samples.items()}

    @property
    def intervals(self) -> dict[str, Array]:
        """{symbol: (levels, 2)}; empty if there is one version only."""
        names, columns = list(self.samples), np.stack(list(self.samples.values()), 1)
        if len(columns) == 1:
            return {}
        return dict(zip(names, percentiles(columns[1:]), strict=True))

    @property
    def loss_parameters(self) -> dict[str, float]:
        """Parameters of the loss at the optimum against compute: L = a C^b + c."""
        law, theta = self.loss_fit
        values = symbols_of(law, theta[:1])[0]
        return dict(zip(law.symbols, map(float, values), strict=True))

    @functools.cached_property
    def loss_fit(self) -> tuple[PowerSum, Array]:
        """Loss at the optimum as a law of compute, and its theta (F, P)."""
        chosen = slice(None, None, max(1, self.log_compute.size // MOST_LOSSES))
        return loss_against_compute(self.log_compute[chosen], self.log_loss[:, chosen])

    @property
    def frontier(self) -> Frontier:
        return power_frontier(self.coefficients, *self.loss_fit, self.cost)


@dataclass(frozen=True)
class Profile:
    """Runs of one compute: losses over the varied quantity, and the local parabola."""

    compute: float
    log_x: Array
    """(S)"""
    loss: Array
    """(S)"""
    used: Array
    """(S) bool: points in the window, to which the parabola is fitted"""
    coefficients: Array
    """(4): loss = c0 + c1 z + c2 z^2, z = log x - center; the fourth is 0"""
    center: float
    state: str
    """inside | edge | outside | none: where the minimum lies among the values in the window"""

    @property
    def log_minimum(self) -> float:
        return float(stationary(self.coefficients[None])[0] + self.center)

    @property
    def minimum_loss(self) -> float:
        return float(self.parabola(np.array([self.log_minimum]))[0])

    @property
    def residuals(self) -> Array:
        """Measured minus fitted loss of the points in the window."""
        return (self.loss - self.parabola(self.log_x))[self.used]

    def parabola(self, log_x: Array) -> Array:
        return polynomial(self.coefficients[None], log_x[None] - self.center)[0]


@dataclass(frozen=True)
class Check:
    """The exponent of the optimum by cubics over wider windows: no parabola is assumed."""

    window: float
    n_computes: int
    exponent: float


def power_law(log_compute: Array, log_optimum: Array) -> Array:
    """(F, 2): log optimum (F, M) = first + second log C (M) by least squares, nan left out."""
    known = np.isfinite(log_optimum)
    y = np.where(known, log_optimum, 0.0)
    count = known.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x = (known * log_compute).sum(1) / count
        mean_y = y.sum(1) / count
        dx = np.where(known, log_compute - mean_x[:, None], 0.0)
        slope = (dx * y).sum(1) / (dx**2).sum(1)
    return np.stack([mean_y - slope * mean_x, slope], 1)


def squared_error(log_compute: Array, log_optimum: Array, coefficients: Array) -> float:
    """Half the sum of squares of the fit (row 0): the objective of a power law through optima."""
    residual = log_optimum[0] - coefficients[0, 0] - coefficients[0, 1] * log_compute
    return float(0.5 * np.nansum(residual**2))


def loss_against_compute(log_compute: Array, log_loss: Array) -> tuple[PowerSum, Array]:
    """L = a C^b + c through the losses at the optima, for every version (F, M).

    Without the irreducible c where fewer than ENOUGH_FOR_IRREDUCIBLE budgets stand behind it.
    """
    table = make_table(flops=np.exp(log_compute), loss=np.exp(log_loss[0]))
    law = build_law(LAWS["compute-power"], table, log_compute.size >= ENOUGH_FOR_IRREDUCIBLE)
    assert isinstance(law, PowerSum)
    x = {"flops": log_compute}
    starts = law.starts(x, np.exp(log_loss[0]))
    first = minimise(law, x, log_loss[0], starts, np.inf)
    best = first.theta[first.objective.argmin()]
    known = np.isfinite(log_loss)
    refits = minimise(
        law,
        x,
        np.where(known, log_loss, 0.0),
        np.tile(best, (len(log_loss), 1)),
        np.inf,
        weights=known.astype(float),
    )
    return law, np.concatenate([best[None], refits.theta[1:]])


def extrapolate_optima(fit: OptimaFit) -> tuple[Extrapolation, Extrapolation] | None:
    """Fit on the cheap computes, predict the optimum and the loss there at the dearest.

    None if fewer than two cheap computes remain.
    """
    log_c = fit.log_compute
    limit = log_c.max() - HELD_OUT_RANGE * np.ptp(log_c)
    cheap = log_c < limit
    if cheap.sum() < 2:
        return None
    lines = power_law(log_c[cheap], fit.log_optimum[:, cheap])
    optima = lines[:, :1] + lines[:, 1:] * log_c[~cheap]
    law, theta = loss_against_compute(log_c[cheap], fit.log_loss[:, cheap])
    losses = law.log_loss(theta, {"flops": log_c[~cheap]})[0]
    pairs = ((fit.log_optimum[0, ~cheap], optima), (fit.log_loss[0, ~cheap], losses))
    optimum, loss = (
        Extrapolation(
            n_fitted=int(cheap.sum()),
            n_held_out=int((~cheap).sum()),
            ratio=float(np.exp(log_c.max() - log_c[cheap].max())),
            x=np.exp(log_c[~cheap]),
            measured=np.exp(measured),
            predicted=np.exp(predicted[0]),
            intervals=np.exp(percentiles(predicted[1:])[:, -1])
            if len(predicted) > 1
            else np.empty((measured.size, 0)),
        )
        for measured, predicted in pairs
    )
    return optimum, loss
