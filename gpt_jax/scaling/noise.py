"""Noise along loss curves: how large it is, and how much of it neighbouring evaluations share.

Part of an evaluation's noise is its own (white), the rest falls off exponentially with the steps
between two evaluations. A few short curves do not fix share and range: both are integrated over,
weighed by the restricted likelihood (Patterson and Thompson 1971), which knows the residuals only
where no change of the fitted law can explain them; so a fit that has taken up slow noise does not
make noise look small. Given both, the scale has Student's uncertainty. Dims: F draws, T
evaluations, P parameters.

Must not import jax.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import Array

RANGES = (np.arange(20) + 0.5) / 20
"""Correlations of evaluations (or stretches) at the median distance, weighed alike beforehand."""
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Shares of the noise's variance that neighbours have in common, likewise."""
MOST = 400
"""Evaluations of a curve of which the noise is judged: means of neighbours where there are more."""
RANK = 1e-9
"""Size of a direction of the law, as a share of the largest, that counts as none."""


@dataclass(frozen=True)
class Shape:
    """One share and range of the noise, and what the residuals say of it."""

    correlation: float
    share: float
    weight: float
    """Posterior probability"""
    variance: float
    """Residual sum of squares that is left for the scale, over its degrees of freedom"""


@dataclass(frozen=True)
class Noise:
    """The noise of several curves' evaluations, one behind the other."""

    shapes: tuple[Shape, ...]
    freedom: int
    places: tuple[Array, ...]
    """Places of each curve's stretches, in median distances"""
    owner: Array
    """(T): the stretch of an evaluation; one each up to MOST evaluations"""

    def draw(self, n_draws: int, rng: np.random.Generator) -> Array:
        """(F, T): noise of further curves like these."""
        weights = np.array([shape.weight for shape in self.shapes])
        counts = rng.multinomial(n_draws, weights / weights.sum())
        found = []
        for shape, count in zip(self.shapes, counts, strict=True):
            if not count:
                continue
            size = (shape.variance * self.freedom / rng.chisquare(self.freedom, count)) ** 0.5
            parts = []
            for place in self.places:
                values, axes = _axes(place, shape.correlation)
                root = axes * (1 - shape.share + shape.share * values) ** 0.5
                parts.append(rng.standard_normal((count, place.size)) @ root.T)
            found.append(size[:, None] * np.concatenate(parts, 1))
        return rng.permutation(np.concatenate(found))[:, self.owner]

    @property
    def together(self) -> float:
        """Variance of the sum of a curve's evaluations, over their number: if they were
        independent, their variance. The geometric mean over shapes: it has a long tail."""
        total, log = sum(place.size for place in self.places), 0.0
        for shape in self.shapes:
            sums = sum(float(_correlations(p, shape.correlation).sum()) for p in self.places)
            mixed = (1 - shape.share) + shape.share * sums / total
            log += shape.weight * float(np.log(shape.variance * mixed))
        return float(np.exp(log)) * self.owner.size / total


def judge(residuals: Array, slopes: Array, steps: Sequence[Array]) -> Noise:
    """The noise of residuals (T) of a law with derivatives (T, P), over curves with these steps.

    Raises ValueError where the law leaves no residual free.
    """
    owner, counts = _stretches([s.size for s in steps])
    n_of = np.bincount(owner)

    def mean(values: Array) -> Array:
        return np.bincount(owner, values) / n_of

    middles = np.split(mean(np.concatenate(steps)), np.cumsum(counts)[:-1])
    distance = float(np.median(np.concatenate([np.diff(m) for m in middles])))
    places = tuple(m / distance for m in middles)
    residuals, slopes = mean(residuals), np.stack([mean(column) for column in slopes.T], 1)
    size, axes = np.linalg.svd(slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-300),
                               full_matrices=False)[1::-1]  # fmt: skip
    basis = axes[:, size > RANK * size.max()]
    freedom = residuals.size - basis.shape[1]
    if freedom < 1:
        raise ValueError(f"{residuals.size} evaluations, all of which the law's parameters take")
    found = list(_likelihoods(residuals, basis, places))
    logs = np.array([one[2] for one in found])
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    shapes = tuple(
        Shape(correlation, share, float(weight), square / freedom)
        for (correlation, share, _, square), weight in zip(found, weights, strict=True)
        if weight > 1e-6
    )
    return Noise(shapes, freedom, places, owner)


def _stretches(sizes: Sequence[int]) -> tuple[Array, list[int]]:
    """(T): the stretch that an evaluation belongs to, and how many stretches each curve has."""
    counts = [min(size, MOST) for size in sizes]
    first = np.cumsum([0, *counts[:-1]])
    owner = [at + np.arange(n) * k // n for at, n, k in zip(first, sizes, counts, strict=True)]
    return np.concatenate(owner), counts


def _likelihoods(
    residuals: Array, basis: Array, places: Sequence[Array]
) -> Iterator[tuple[float, float, float, float]]:
    """Correlation, share, restricted log likelihood, and the squares left for the scale."""
    freedom = residuals.size - basis.shape[1]
    rows = np.split(np.column_stack([basis, residuals]), np.cumsum([p.size for p in places])[:-1])
    for correlation in RANGES:
        turned = []
        for place, own in zip(places, rows, strict=True):
            values, axes = _axes(place, correlation)
            turned.append((values, axes.T @ own))
        for share in SHARES:
            size = np.concatenate([1 - share + share * values for values, _ in turned])
            white = np.concatenate([own for _, own in turned]) / size[:, None] ** 0.5
            inner = white.T @ white
            half = np.linalg.cholesky(inner)
            square = float(half[-1, -1] ** 2)
            fitted = 2 * float(np.log(np.diag(half)[:-1]).sum())
            log = -(float(np.log(size).sum()) + fitted + freedom * np.log(square)) / 2
            yield float(correlation), share, log, square


def _correlations(place: Array, correlation: float) -> Array:
    return correlation ** np.abs(place[:, None] - place[None])


def _axes(place: Array, correlation: float) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of a curve's correlations."""
    values, axes = np.linalg.eigh(_correlations(place, correlation))
    return np.maximum(values, 1e-9), axes
