"""Intervals: profile likelihood and bootstrap over runs, for printed parameters and answers.

The profile moves a quantity, refits everything else, and scales the increase of the objective by
the scatter of the residuals, which it assumes to be equal over runs; the bootstrap refits resampled
runs and makes no such assumption. Dims: F fits, R runs, P free parameters, K quantities.

Must not import jax.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import Array, Law, LogVariables
from gpt_jax.scaling.minimise import Minima, Objective, Pull, Space, minimise

LEVELS = (80, 95)
"""Levels of the intervals, in percent."""
EXACT = 1e-9
"""Residuals of log loss below this are rounding: the interval is the point."""

FLAT = 1e-12
"""Curvature of the objective, as a share of its largest, that counts as none."""
LARGEST_ERROR = 1.0
"""Profiles take no longer steps for a standard error, of quantities that are logarithms."""

MOST_VALUES = 50_000
"""Fits times runs that are solved at once: few enough to fit into caches."""

Quantities = Callable[[Array], Array]
"""theta (F, P) -> quantities (F, K), as logarithms or of that order of size"""


@dataclass(frozen=True)
class Problem:
    """A fit to be made: a law, the runs, and the objective."""

    law: Law
    x: LogVariables
    loss: Array
    """(R) measured"""
    delta: float
    space: Space = "log"
    asymmetry: float = 1.0
    weights: Array | None = None
    """(R)"""
    strata: Array | None = None
    """(R): the bootstrap draws as many runs of each value as there are; none = one value"""

    @property
    def log_loss(self) -> Array:
        """(R); nan where a loss is not above 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(self.loss)

    @property
    def measured(self) -> Array:
        """(R) in the objective's space."""
        return self.log_loss if self.space == "log" else self.loss

    @property
    def objective(self) -> Objective:
        return Objective(self.law, self.x, self.delta, self.space, self.asymmetry)

    def minimise(
        self,
        theta: Array,
        iterations: int = 300,
        pull: Pull | None = None,
        times: Array | None = None,
    ) -> Minima:
        """times: (F, R) how often a fit has each run, once if not given."""
        weights = self.weights
        if times is not None:
            weights = times if weights is None else times * weights
        return minimise(
            self.law,
            self.x,
            self.measured,
            theta,
            self.delta,
            space=self.space,
            asymmetry=self.asymmetry,
            weights=weights,
            pull=pull,
            iterations=iterations,
        )

    def residuals(self, theta: Array) -> Array:
        """theta (P) -> measured minus predicted loss (R), in log space of their logarithms."""
        return self.measured - self.objective.predict(theta[None])[0][0]


def chunks(fits: Array, n_runs: int) -> list[Array]:
    """Rows of fits (F, ...) in parts that are solved at once, within MOST_VALUES."""
    return np.array_split(fits, max(1, math.ceil(len(fits) * n_runs / MOST_VALUES)))


def bootstrap(problem: Problem, theta: Array, clusters: Array, n_refits: int, seed: int) -> Array:
    """(n_refits, P): refits to resampled runs, each from the optimum theta (P).

    clusters: (R) index of the run that a row belongs to; rows of one run stay together.
    """
    draws = _resample(clusters, problem.strata, n_refits, np.random.default_rng(seed))
    found = []
    for chunk in chunks(draws, problem.loss.size):
        start = np.tile(theta, (len(chunk), 1))
        found.append(problem.minimise(start, times=chunk[:, clusters].astype(float)).theta)
    return np.concatenate(found)


def _resample(
    clusters: Array, strata: Array | None, n_refits: int, rng: np.random.Generator
) -> Array:
    """(n_refits, clusters): how often each is drawn, as many of each stratum as it has."""
    n_clusters = int(clusters.max()) + 1
    stratum = np.zeros(n_clusters, int)
    if strata is not None:
        stratum[clusters] = strata
    draws = np.empty((n_refits, n_clusters), int)
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        share = np.full(members.size, 1 / members.size)
        draws[:, members] = rng.multinomial(members.size, share, n_refits)
    return draws


def percentiles(samples: Array) -> Array:
    """samples (F, K) -> (K, levels, 2): the middle 80% and 95%."""
    edges = [[50 - level / 2, 50 + level / 2] for level in LEVELS]
    return np.nanpercentile(samples, np.ravel(edges), axis=0).T.reshape(-1, len(LEVELS), 2)


def profile(problem: Problem, theta: Array, quantities: Quantities) -> Array:
    """(K, levels, 2): profile-likelihood intervals of quantities at the optimum theta (P).

    An edge that the runs do not give is nan. The loss in objective is compared with Student's t
    (R - P degrees of freedom), which is exact for least squares on a linear model.
    """
    from scipy.special import stdtrit

    n_runs, n_free = problem.loss.size, theta.size
    center = quantities(theta[None])[0]
    residual = problem.residuals(theta)
    if np.abs(residual).max() < EXACT or n_runs <= n_free:
        point = center if n_runs > n_free else np.full(center.shape, np.nan)
        return np.tile(point[:, None, None], (1, len(LEVELS), 2))
    quantiles = stdtrit(n_runs - n_free, 0.5 + np.array(LEVELS) / 200)
    intervals = np.full((center.size, len(LEVELS), 2), np.nan)
    constant = (_gradient(quantities, theta[None])[0] == 0).all(1)
    intervals[constant] = center[constant, None, None]  # held by constraints
    # Distances in standard errors; the far ones are for long-tailed quantities such as A and B.
    for reach in (np.arange(0.4, 4.1, 0.4), np.geomspace(4, 80, 12)):
        wanted = np.flatnonzero(np.isnan(intervals).any((1, 2)))
        if wanted.size:
            curves = _trace(problem, theta, _columns(quantities, wanted), reach)
            for k, sides in zip(wanted, curves, strict=True):
                for side, (value, deviation) in enumerate(sides):
                    found = np.interp(quantiles, deviation, value, right=np.nan)
                    known = intervals[k, :, side]
                    intervals[k, :, side] = np.where(np.isnan(known), found, known)
    return intervals


def _trace(
    problem: Problem, theta: Array, quantities: Quantities, reach: Array
) -> list[list[tuple[Array, Array]]]:
    """Per quantity, below and above the optimum: its values and their deviation.

    The deviation is the root of twice the rise of the profile objective, in units of the scatter:
    for a linear model the distance from the optimum in standard errors.
    """
    scale, covariance = _scatter(problem, theta, problem.residuals(theta))
    center, gradient = quantities(theta[None])[0], _gradient(quantities, theta[None])[0]
    error = np.sqrt(np.einsum("kp,pq,kq->k", gradient, covariance, gradient))
    error, along = np.minimum(error, LARGEST_ERROR), (gradient @ covariance) / error[:, None] ** 2
    steps = np.stack([-reach, reach])
    which = np.repeat(np.arange(center.size), steps.size)
    distance = np.tile(steps.ravel(), center.size) * error[which]
    pull = Pull(
        value=lambda at, fits: _select(quantities, at, which[fits]),
        target=center[which] + distance,
        strength=10 * scale / error[which] ** 2,
    )
    minima = problem.minimise(theta + along[which] * distance[:, None], 100, pull)
    best = problem.minimise(theta[None], 0).objective[0]
    rise = np.sqrt(np.maximum(0, 2 * (minima.objective - best) / scale))
    shape = (center.size, 2, reach.size)
    reached = _select(quantities, minima.theta, which)[0].reshape(shape)
    rise = np.maximum.accumulate(rise.reshape(shape), axis=2)
    return [
        [(np.append(center[k], reached[k, s]), np.append(0.0, rise[k, s])) for s in (0, 1)]
        for k in range(center.size)
    ]


def _scatter(problem: Problem, theta: Array, residual: Array) -> tuple[float, Array]:
    """The scale that turns objective into squared standard errors, and theta's covariance."""
    n_runs, n_free = residual.size, theta.size
    goal = problem.objective
    weight = goal.side(-residual) * (
        np.ones(n_runs) if problem.weights is None else problem.weights
    )
    influence = weight * np.clip(residual, -problem.delta, problem.delta)
    steepness = _share_within(residual, n_free, problem.delta)
    scale = (influence**2).sum() / (n_runs - n_free) / steepness / weight.mean()
    _, jacobian = goal.predict(theta[None])
    # A direction that the runs say nothing of has a large variance, not none.
    size, direction = np.linalg.eigh(steepness * (jacobian[0] * weight) @ jacobian[0].T)
    return scale, scale * (direction / np.maximum(size, FLAT * size[-1])) @ direction.T


def _share_within(residual: Array, n_free: int, delta: float) -> float:
    """Share of errors within delta, by a density estimate where delta is below the scatter.

    An almost absolute loss passes through about one run per free parameter: those n_free
    residuals near zero say nothing of the errors. The share is counted in a wider window, and
    brought to delta as for normal errors, whose density falls off within the window.
    """
    if np.isinf(delta):
        return 1.0
    size = np.sort(np.abs(residual))[n_free:]
    sigma = np.median(size) / 0.6745
    width = max(delta, 1.06 * sigma * residual.size**-0.2)
    counted = max(float((size <= width).mean()), 1 / size.size)
    if width <= delta:
        return counted
    within, wide = (math.erf(x / sigma / math.sqrt(2)) for x in (delta, width))
    return counted * within / wide


def _columns(quantities: Quantities, wanted: Array) -> Quantities:
    return lambda theta: quantities(theta)[:, wanted]


def _select(quantities: Quantities, theta: Array, which: Array) -> tuple[Array, Array]:
    rows = np.arange(len(theta))
    return quantities(theta)[rows, which], _gradient(quantities, theta)[rows, which]


def _gradient(quantities: Quantities, theta: Array) -> Array:
    """(F, K, P), by central differences of a smooth closed form."""
    columns = []
    for p in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, p] = 1e-6 * np.maximum(1, np.abs(theta[:, p]))
        rise = quantities(theta + step) - quantities(theta - step)
        columns.append(rise / (2 * step[:, p, None]))
    return np.stack(columns, -1)
