"""Which runs to make next: the expected reduction of a target's predictive variance, run by run.

What the runs allow is a mixture of laws, loss = E + exp(polynomial in the logarithms of the
variables + misfit): each share of the lowest loss as E, each set of quadratic terms. The misfit is
a smooth function of the variables, small beforehand: no polynomial is right everywhere (Kennedy and
O'Hagan 2001), and without it only runs at the edges would be chosen, which say most of one. For
given E such a law is linear, so that its posterior under a normal-inverse-gamma prior, and its
evidence, are exact (O'Hagan and Forster 2004, chapter 11); runs far off the mixture are trusted
less. The mixture's covariance has a part within laws and one between them; a run reduces both by
what a linear update of the target on its loss explains.
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
TAILS = 4.0
"""Degrees of freedom of the runs' scatter, Student's t: a few runs may be far off (Lange, Little
and Taylor 1989)."""
LOOKS = 2
"""Times that the runs' variances follow from how far off they are."""
NEGLIGIBLE = 0.05
"""Weight of a law, as a share of the heaviest, below which it is left out."""
MISFITS = ((1.0, 1.0), (1.0, 10.0), (2.0, 1.0), (2.0, 10.0))
"""(length, variance) of the misfits that are weighed beside none, in standardised logarithms and in
units of the scatter."""
CENTRES = 60
"""Places that a misfit is free at; between them it is interpolated."""
MOST = 500
"""Candidates among which a plan is made: those that alone gain most for their cost."""
RANK = 1e-6
"""Size of a direction of the targets' losses, as a share of the largest, that counts as none."""
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
    bases = list(_bases(z))
    trust = np.ones(observed.size)
    seen, every = [(name, b[observed], prior) for name, b, prior in bases], np.arange(loss.size)
    for _ in range(LOOKS):
        belief = _mixture(seen, every, loss, trust)
        off = (loss - belief.mean) ** 2 / belief.noise
        trust = (TAILS + 1) / (TAILS + off)
    return _mixture(bases, observed, loss, trust)


def _mixture(
    bases: Sequence[tuple[str, Array, Array]], observed: Array, loss: Array, trust: Array
) -> Belief:
    """The mixture with the runs' losses trusted so much: 1 over the variance, in the scatter's."""
    found = [
        (f"{name}, E = {share * loss.min():.3g}", basis,
         _posterior(basis[observed], prior, loss, share, trust))
        for name, basis, prior in bases
        for share in FLOORS
    ]  # fmt: skip
    evidence = np.array([law.evidence for _, _, law in found])
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    least = NEGLIGIBLE * weight.max()
    kept = [(w, *law) for w, law in zip(weight, found, strict=True) if w > least]
    total = sum(law[0] for law in kept)
    places = [(w / total, *law.at(basis)) for w, _, basis, law in kept]
    mean = np.sum([w * at for w, at, _, _ in places], axis=0)
    columns = []
    for w, at, root, _ in places:
        columns += [w**0.5 * root, w**0.5 * (at - mean)[:, None]]
    noise = np.sum([w * scatter for w, _, _, scatter in places], axis=0)
    names = {name: float(w / total) for w, name, _, _ in kept}
    return Belief(mean, np.concatenate(columns, 1), noise, names)


def _bases(z: Array) -> Iterator[tuple[str, Array, Array]]:
    """(name, columns (M, P), prior variances (P)) of each set of terms, then with misfits."""
    sets = list(_polynomials(z))
    yield from sets
    plain, *_, full = sets
    bumps_of = {length: _misfit(z, length) for length, _ in MISFITS}
    for length, variance in MISFITS:
        bumps = bumps_of[length]
        for name, columns, prior in (plain, full):
            yield (
                f"{name} + misfit of length {length:g}, variance {variance:g}",
                np.concatenate([columns, bumps], 1),
                np.append(prior, np.full(bumps.shape[1], variance)),
            )


def _misfit(z: Array, length: float) -> Array:
    """(M, centres): columns whose independent coefficients make a function with covariance
    exp(-distance^2 / 2 length^2), at centres spread over the places (Nystroem)."""
    centres = [int(((z - z.mean(0)) ** 2).sum(1).argmin())]
    far = ((z - z[centres[0]]) ** 2).sum(1)
    while len(centres) < CENTRES and far.max() > 0:
        centres.append(int(far.argmax()))
        far = np.minimum(far, ((z - z[centres[-1]]) ** 2).sum(1))
    near = np.exp(-((z[:, None] - z[None, centres]) ** 2).sum(2) / (2 * length**2))
    size, axes = np.linalg.eigh(near[centres])
    kept = size > 1e-6 * size[-1]
    return near @ (axes[:, kept] / size[kept] ** 0.5)


def _polynomials(z: Array) -> Iterator[tuple[str, Array, Array]]:
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


@dataclass(frozen=True)
class _Posterior:
    """A law's coefficients, normal given the scatter, after the runs."""

    evidence: float
    floor: float
    center: float
    weights: Array
    covariance: Array
    variance: float

    def at(self, basis: Array) -> tuple[Array, Array, Array]:
        """Mean (M), square root of the covariance (M, P) and scatter (M) of losses at places."""
        above = np.exp(np.clip(basis @ self.weights + self.center, -20, 20))
        root = basis @ np.linalg.cholesky(self.covariance)
        root = above[:, None] * root * self.variance**0.5
        return self.floor + above, root, self.variance * above**2


def _posterior(seen: Array, prior: Array, loss: Array, share: float, trust: Array) -> _Posterior:
    """seen: (O, P) columns of the runs made; trust: (O)."""
    floor = share * loss.min()
    logs = np.log(loss - floor)
    center = float(logs.mean())
    precision = (seen.T * trust) @ seen + np.diag(1 / prior)
    covariance = np.linalg.inv(precision)
    weights = covariance @ (seen.T @ (trust * (logs - center)))
    # The scatter of a loss is that of its logarithm, the larger the less of it is reducible.
    shape, scale = 1.0, (SCATTER / (1 - share)) ** 2
    residual = trust @ (logs - center) ** 2 - weights @ precision @ weights
    shape_after, scale_after = shape + logs.size / 2, scale + max(residual, 0.0) / 2
    evidence = (
        shape * math.log(scale)
        - shape_after * math.log(scale_after)
        + math.lgamma(shape_after)
        - 0.5 * float(np.linalg.slogdet(precision)[1] + np.log(prior).sum())
        + 0.5 * float(np.log(trust).sum())
        - float(logs.sum())
    )
    variance = scale_after / (shape_after - 0.5)
    return _Posterior(evidence, floor, center, weights, covariance, variance)


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
    left, found = np.array(candidates)[cost[candidates] <= budget], list[Chosen]()
    # inner @ inner.T is the targets' covariance, summed up in as many columns as it has directions.
    _, size, axes = np.linalg.svd(belief.root[targets] / len(targets) ** 0.5, full_matrices=False)
    inner = axes[size > RANK * size[0]].T * size[size > RANK * size[0]]
    before = float((inner**2).sum())
    root = belief.root[left]
    alone = ((root @ inner) ** 2).sum(1) / ((root**2).sum(1) + belief.noise[left])
    kept = np.sort(np.argsort(-alone / cost[left] ** power, kind="stable")[:MOST])
    left, root, inner = left[kept], *_turned(root[kept], inner)
    while most is None or len(found) < most:
        affordable = cost[left] <= budget
        left, root = left[affordable], root[affordable]
        if not left.size:
            return found, False
        noise = belief.noise[left]
        gain = ((root @ inner) ** 2).sum(1) / ((root**2).sum(1) + noise)
        if not gain.max() > 0 or 1 - math.sqrt(max(0, 1 - gain.max() / before)) < nothing:
            return found, True
        best = int(np.argmax(np.where(gain > 0, gain, 0) / cost[left] ** power))
        place, after = int(left[best]), max(before - float(gain[best]), 0.0)
        found.append(Chosen(place, float(cost[place]), before**0.5, after**0.5))
        root, inner = _learned(root, inner, best, float(noise[best]))
        budget, before = budget - cost[place], after
        left, root = np.delete(left, best), np.delete(root, best, 0)
    return found, False


def _turned(root: Array, inner: Array) -> tuple[Array, Array]:
    """The same products of rows and columns in no more columns of root than there are of both."""
    both = np.concatenate([root, inner.T])
    if both.shape[1] <= both.shape[0]:
        return root, inner
    short = np.asarray(np.linalg.qr(both.T, mode="r")).T
    return short[: len(root)], short[len(root) :].T


def _learned(root: Array, inner: Array, place: int, noise: float) -> tuple[Array, Array]:
    """The covariance's square root, and the targets', after a run at a row (Potter's update)."""
    row = root[place]
    total = row @ row + noise
    share = 1 / (total + math.sqrt(noise * total))
    return root - np.outer(root @ row, row * share), inner - np.outer(row * share, row @ inner)
