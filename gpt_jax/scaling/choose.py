"""Which runs to make next: the expected reduction of a target's predictive variance, run by run.

What the runs allow is a mixture of laws, loss = E + exp(polynomial in the logarithms of the
variables): each share of the lowest loss as E, each set of quadratic terms. For given E such a law
is linear, so that its posterior under a normal-inverse-gamma prior, and its evidence, are exact
(O'Hagan and Forster 2004, chapter 11). The mixture's covariance has a part within laws and one
between them; a run reduces both by what a linear update of the target on its loss explains.
Dims: M places (candidates, targets, runs), O runs made, K columns of a square root of the
covariance.

Must not import jax.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import Array

FLOORS = np.linspace(0, 0.9, 10)
"""Irreducible losses that are weighed, as shares of the lowest loss."""
PRIOR = {"constant": 1e4, "linear": 1e2, "quadratic": 1.0}
"""Prior variances of coefficients in units of the scatter, of standardised logarithms."""
SCATTER = 0.02
"""Prior scatter of log losses above the irreducible one; it counts as one run."""
NEGLIGIBLE = 1e-4
"""Weight of a law below which it is left out."""
EXPONENTS = (0.0, 0.5, 1.0)
"""Powers of the cost that a gain is divided by; the plan that reduces variance most is returned."""
NOTHING = 0.01
"""A run that narrows the target's standard deviation by less than this share buys nothing."""


@dataclass(frozen=True)
class Belief:
    """Posterior distribution of the losses at M places, given the runs made."""

    mean: Array
    """(M)"""
    root: Array
    """(M, K): root @ root.T is the covariance of the laws' losses, without scatter"""
    noise: Array
    """(M) variance of a single run around its law"""
    weights: dict[str, float]
    """{law: posterior probability}, of those that are not negligible"""

    def deviation(self, places: Array) -> float:
        """Root mean variance of the loss at some places."""
        return float(np.sqrt((self.root[places] ** 2).sum(1).mean()))


@dataclass(frozen=True)
class Chosen:
    """A run of a plan."""

    place: int
    cost: float
    before: float
    """Standard deviation of the target's loss without this run"""
    after: float


def believe(variables: Array, observed: Array, loss: Array) -> Belief:
    """The mixture of laws after the runs at `observed` (O) of places (M, variables) in logarithms.

    loss: (O). Raises ValueError without two runs, or where losses are not positive.
    """
    if observed.size < 2 or not (loss > 0).all():
        raise ValueError(f"{observed.size} runs with a loss; at least two, of positive loss")
    spread = variables.std(0)
    z = (variables - variables.mean(0)) / np.where(spread > 0, spread, 1.0)
    found = [
        (f"{name}, E = {share * loss.min():.3g}", *_posterior(basis, prior, observed, loss, share))
        for name, basis, prior in _bases(z)
        for share in FLOORS
    ]
    evidence = np.array([law[1] for law in found])
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    kept = [(w, *law) for w, law in zip(weight, found, strict=True) if w > NEGLIGIBLE]
    total = sum(law[0] for law in kept)
    mean = sum((w * at for w, _, _, at, _, _ in kept), np.zeros(len(z))) / total
    columns, noise = [], np.zeros(len(z))
    for w, _, _, at, root, scatter in kept:
        part = (w / total) ** 0.5
        columns += [part * root, part * (at - mean)[:, None]]
        noise += w / total * scatter
    names = {law[1]: float(law[0] / total) for law in kept}
    return Belief(mean, np.concatenate(columns, 1), noise, names)


def _bases(z: Array) -> Iterator[tuple[str, Array, Array]]:
    """(name, columns (M, P), prior variances (P)) of each set of terms."""
    n = z.shape[1]
    pairs = list(itertools.combinations_with_replacement(range(n), 2))
    squares = [pair for pair in pairs if pair[0] == pair[1]]
    sets: Iterable[Sequence[tuple[int, int]]] = ([], squares, pairs)
    if n <= 2:
        sets = [c for k in range(len(pairs) + 1) for c in itertools.combinations(pairs, k)]
    for terms in sets:
        columns = [np.ones(len(z)), *z.T, *(z[:, i] * z[:, j] for i, j in terms)]
        kinds = [PRIOR["constant"], *[PRIOR["linear"]] * n, *[PRIOR["quadratic"]] * len(terms)]
        name = "power law" + "".join(f" + x{i + 1}x{j + 1}" for i, j in terms)
        yield name, np.stack(columns, 1), np.array(kinds)


def _posterior(
    basis: Array, prior: Array, observed: Array, loss: Array, share: float
) -> tuple[float, Array, Array, Array]:
    """Log evidence, mean (M), square root of the covariance (M, P) and scatter (M) of losses."""
    floor = share * loss.min()
    logs = np.log(loss - floor)
    seen, center = basis[observed], logs.mean()
    precision = seen.T @ seen + np.diag(1 / prior)
    covariance = np.linalg.inv(precision)
    weights = covariance @ (seen.T @ (logs - center))
    # The scatter of a loss is that of its logarithm, the larger the less of it is reducible.
    shape, scale = 1.0, (SCATTER / (1 - share)) ** 2
    residual = (logs - center) @ (logs - center) - weights @ precision @ weights
    shape_after, scale_after = shape + logs.size / 2, scale + max(residual, 0.0) / 2
    evidence = (
        shape * math.log(scale)
        - shape_after * math.log(scale_after)
        + math.lgamma(shape_after)
        - 0.5 * float(np.linalg.slogdet(precision)[1] + np.log(prior).sum())
        - float(logs.sum())
    )
    variance = scale_after / (shape_after - 0.5)
    above = np.exp(np.clip(basis @ weights + center, -20, 20))
    root = above[:, None] * (basis @ np.linalg.cholesky(covariance)) * variance**0.5
    return evidence, floor + above, root, variance * above**2


def plan(
    belief: Belief,
    targets: Array,
    candidates: Array,
    cost: Array,
    budget: float,
    *,
    most: int | None = None,
    nothing: float = NOTHING,
) -> tuple[list[Chosen], bool]:
    """Runs, one after another, by the variance of the targets that each is expected to take away.

    cost: (M). Gains are divided by powers of the cost (EXPONENTS), and of these plans the one that
    leaves the least variance is taken: each greedy rule alone can be far off under a budget. most:
    at most so many runs. Returns the plan and whether it ended because another run buys nothing.
    """
    plans = [
        _greedy(belief, targets, candidates, cost, budget, power, most, nothing)
        for power in EXPONENTS
    ]
    return min(plans, key=lambda p: p[0][-1].after if p[0] else np.inf)


def _greedy(
    belief: Belief,
    targets: Array,
    candidates: Array,
    cost: Array,
    budget: float,
    power: float,
    most: int | None,
    nothing: float,
) -> tuple[list[Chosen], bool]:
    root, left, found = belief.root.copy(), np.array(candidates), list[Chosen]()
    before = float((root[targets] ** 2).sum(1).mean())
    while most is None or len(found) < most:
        left = left[cost[left] <= budget]
        if not left.size:
            return found, False
        variance = (root[left] ** 2).sum(1) + belief.noise[left]
        inner = root[targets].T @ root[targets] / len(targets)
        gain = np.einsum("ij,jk,ik->i", root[left], inner, root[left]) / variance
        if not gain.max() > 0 or 1 - math.sqrt(max(0, 1 - gain.max() / before)) < nothing:
            return found, True
        best = int(np.argmax(np.where(gain > 0, gain, 0) / cost[left] ** power))
        place, after = int(left[best]), max(before - float(gain[best]), 0.0)
        found.append(Chosen(place, float(cost[place]), before**0.5, after**0.5))
        root = _learned(root, place, float(belief.noise[place]))
        budget, before, left = budget - cost[place], after, np.delete(left, best)
    return found, False


def _learned(root: Array, place: int, noise: float) -> Array:
    """The covariance's square root after a run at a place (Potter's update)."""
    row = root[place]
    total = row @ row + noise
    return root - np.outer(root @ row, row) / (total + math.sqrt(noise * total))
