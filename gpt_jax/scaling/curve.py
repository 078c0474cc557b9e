"""The whole loss curve under a learning-rate schedule: the multi-power law.

L(t) = L0 + A S(t)^-alpha + B sum_k (lr_k - lr_k-1) G(lr_k^-gamma (S(t) - S(k-1))),
G(x) = 1 - (C x + 1)^-beta, S(t) the sum of learning rates up to step t (Luo et al., arXiv
2503.12811, eq. 3). The sum runs over short blocks of steps that end at evaluations; warm-up is in
it. Dims: F fits, T evaluations, M blocks, P = 7 parameters. Must not import jax.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import Array, LogVariables
from gpt_jax.scaling.minimise import minimise

SYMBOLS = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
LOGS = (1, 3, 4)
"""Parameters that theta holds as logarithms."""
DELTA = 3e-3
"""Huber delta on log loss: about the size of the law's residuals (the paper: 1e-3)."""
BLOCK = 48
"""Steps of a block at most."""
AWAY = 20
"""Evaluations in a block of residuals: a curve's noise is correlated over some hundred steps."""
TINY_RATE = 1e-12
FEWEST_STEPS, FEWEST_STRETCHES = 20, 8
"""Fewest steps, and stretches of them after the warm-up, of a run whose curve is fitted."""
DECAYED = 0.9
"""Share of the peak below which a learning rate has decayed."""
HELD = ("C", "beta", "gamma")
"""Parameters that the beginning of one run says nothing of."""
PRIOR = {"C": (0.0, 1.0), "beta": (0.5, 0.1), "gamma": (0.5, 0.1)}
"""Centre and width in theta of what is known beforehand: the start of the paper's own fits, which
stop after some steps. Few curves leave the three to each other, and their least error then
predicts longer runs badly."""
NOISE = 1e-3 * AWAY**0.5
"""Error of log loss, at most, that costs the objective as much as one width of the prior; cleaner
residuals make the prior count less (`_noise_of`). The factor AWAY^0.5 is there because neighbouring
residuals are correlated: AWAY evaluations count as one."""
PRIOR_STEP = 1e-4
"""Scale of the prior's rows: far within Huber's delta."""


@dataclass(frozen=True)
class Curve:
    """A run's schedule and its losses at some of its steps."""

    name: str
    rates: Array
    """(steps) learning rate of each step from 0"""
    steps: Array
    """(T) int: evaluations"""
    loss: Array
    """(T); nan where it is to be predicted"""


def from_steps(name: str, steps: Array, rates: Array, loss: Array, most: int = 200) -> Curve:
    """The curve of single steps' losses: means over at most so many stretches after the warm-up.

    steps, loss: (steps recorded); rates: of each step from 0, perhaps beyond the last recorded.
    Raises ValueError where too few steps are left.
    """
    if steps.size < FEWEST_STEPS:
        raise ValueError(f"{name}: {steps.size} steps; {FEWEST_STEPS} or more are needed")
    parts = [p for p in np.array_split(np.arange(steps.size), min(most, steps.size // 5)) if p.size]
    peak = int(rates[: int(steps.max()) + 1].argmax())
    after = [p for p in parts if steps[p[0]] > peak * 1.05]
    if len(after) < FEWEST_STRETCHES:
        raise ValueError(f"{name}: too few steps after warm-up to fit a curve")
    return Curve(
        name,
        rates,
        np.array([int(steps[p].mean()) for p in after]),
        np.array([loss[p].mean() for p in after]),
    )


def has_decayed(curve: Curve) -> bool:
    """Whether the learning rate has fallen by a tenth by the last measured evaluation."""
    seen = curve.rates[: int(curve.steps[np.isfinite(curve.loss)].max()) + 1]
    return bool((seen[int(seen.argmax()) :] < DECAYED * seen.max()).any())


@dataclass(frozen=True)
class Blocks:
    """A curve made ready: what the law's sums run over."""

    total: Array
    """(T): S at the evaluations"""
    gap: Array
    """(M): change of the rate within a block"""
    log_rate: Array
    """(M)"""
    distance: Array
    """(T, M): S(t) - S(k - 1); 0 for blocks after t"""


def make_blocks(curve: Curve) -> Blocks:
    """The blocks of a curve, split at its evaluations; blocks of constant rate are left out."""
    rates, last = np.maximum(curve.rates, TINY_RATE), int(curve.steps.max())
    sums = np.cumsum(curve.rates)
    edges = np.union1d(np.arange(0, last + 1, BLOCK), curve.steps).astype(int)
    change = np.diff(rates[: last + 1])
    size = np.add.reduceat(np.abs(change), edges[:-1])
    moving = size > 0
    # A block's change is taken to happen at its centroid, which for a jump is the jump's step.
    moment = np.add.reduceat(np.abs(change) * np.arange(1, last + 1), edges[:-1])
    middle = np.rint(moment[moving] / size[moving]).astype(int)
    gap, end = np.diff(rates[edges])[moving], edges[1:][moving]
    total = sums[curve.steps]
    distance = np.maximum(total[:, None] - sums[middle - 1], 0.0)
    distance = np.where(end[None] <= curve.steps[:, None], distance, 0.0)
    return Blocks(total, gap, np.log(rates[middle]), distance)


@dataclass(frozen=True)
class MultiPower:
    """The law over several curves, their evaluations one behind the other."""

    blocks: tuple[Blocks, ...]
    held: tuple[tuple[int, float], ...] = ()
    """(index, theta): parameters that do not move"""
    prior: bool = True

    @property
    def bounds(self) -> Array:
        rows = [
            [0.0, 1e3], [-30.0, 30.0], [1e-3, 5.0], [-30.0, 30.0], [-30.0, 30.0], [1e-3, 10.0],
            [-1.0, 3.0],
        ]  # fmt: skip
        for index, value in self.held:
            rows[index] = [value, value]
        return np.array(rows)

    def values(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        parts = [curve_values(theta, block) for block in self.blocks]
        return np.concatenate([p[0] for p in parts], 1), np.concatenate([p[1] for p in parts], 2)

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        value, gradient = self.values(theta, x)
        value, gradient = np.log(value), gradient / value[:, None]
        if not self.prior:
            return value, gradient
        # Rows that are 0 where the prior is met.
        rows, slopes = [], np.zeros((*theta.shape, len(PRIOR)))
        for k, (symbol, (centre, width)) in enumerate(PRIOR.items()):
            index = SYMBOLS.index(symbol)
            rows.append(PRIOR_STEP * (theta[:, index] - centre) / width)
            slopes[:, index, k] = PRIOR_STEP / width
        return np.append(value, np.stack(rows, 1), 1), np.append(gradient, slopes, 2)


@dataclass(frozen=True)
class CurveFit:
    """A law fitted to curves, with refits to resampled residuals in linear approximation."""

    theta: Array
    """(P)"""
    spread: Array
    """(F, P): theta of the refits less theta"""
    objective: float
    curves: tuple[Curve, ...]

    @property
    def parameters(self) -> dict[str, float]:
        return dict(zip(SYMBOLS, map(float, printed(self.theta)), strict=True))

    def predict(self, curve: Curve) -> tuple[Array, Array]:
        """(T) losses of a curve, and (F, T) of the refits."""
        value, gradient = curve_values(self.theta[None], make_blocks(curve))
        return value[0], value[0] + self.spread @ gradient[0]


def printed(theta: Array) -> Array:
    """theta (P) -> L0, A, alpha, B, C, beta, gamma."""
    return np.where(np.isin(np.arange(7), LOGS), np.exp(np.clip(theta, -700, 700)), theta)


def from_parameters(values: dict[str, float]) -> Array:
    """Printed parameters -> theta (P)."""
    return np.array([np.log(values[s]) if i in LOGS else values[s] for i, s in enumerate(SYMBOLS)])


def fit_curves(
    curves: Sequence[Curve],
    *,
    like: Array | None = None,
    held: Sequence[str] = (),
    n_refits: int = 500,
    seed: int = 0,
) -> CurveFit:
    """The law of the least Huber loss of log loss over all evaluations, from several starts.

    like: a law's theta to start from. held: parameters that stay at its values.
    """
    known = [_with_loss(curve) for curve in curves]
    fixed = (
        tuple((SYMBOLS.index(s), float(like[SYMBOLS.index(s)])) for s in held)
        if like is not None
        else ()
    )
    law = MultiPower(tuple(make_blocks(curve) for curve in known), fixed)
    measured = np.log(np.concatenate([curve.loss for curve in known]))
    rows = np.append(measured, np.zeros(len(PRIOR)))
    sizes = [curve.loss.size for curve in known]

    def weights(noise: float) -> Array:
        return np.append(np.ones(measured.size), np.full(len(PRIOR), (noise / PRIOR_STEP) ** 2))

    if measured.size <= len(SYMBOLS) - len(fixed):
        raise ValueError(f"{measured.size} evaluations; the law has {len(SYMBOLS)} parameters")
    starts = _starts(law, np.exp(measured)) if like is None else like[None]
    rough = minimise(law, {}, rows, starts, 10 * DELTA, weights=weights(NOISE), iterations=60)
    best = rough.theta[np.argsort(rough.objective)[:2]]
    off = measured - law.log_loss(best[:1], {})[0][0, : measured.size]
    noise = min(NOISE, _noise_of(off, sizes)[0])
    fine = minimise(law, {}, rows, best, DELTA, weights=weights(noise), iterations=400)
    theta = fine.theta[fine.objective.argmin()]
    spread = _spread(
        MultiPower(law.blocks, law.held, prior=False),
        theta,
        measured,
        sizes,
        n_refits,
        seed,
        noise,
    )
    return CurveFit(theta, spread, float(fine.objective.min()), tuple(known))


def _noise_of(residuals: Array, sizes: Sequence[int]) -> tuple[float, float, float]:
    """Scatter of evaluations as if they were independent, how many count as one, and how many by
    what stretches of them share within.

    From the sums of stretches of AWAY residuals. Stretches miss what their ends share; of noise
    whose correlation falls exponentially, where f count as one, (f^2 - 1) / (2 AWAY).
    """
    sums = []
    for size, end in zip(sizes, np.cumsum(sizes), strict=True):
        own = residuals[end - size : end]
        length = min(AWAY, size)
        sums.append(own[: size // length * length].reshape(-1, length).sum(1) / length**0.5)
    scatter = float((np.concatenate(sums) ** 2).mean()) ** 0.5
    within = max(1.0, scatter**2 / max(float((residuals**2).mean()), 1e-300))
    inside = 1 - 2 * (within - 1 / (2 * AWAY)) / AWAY
    count = AWAY * (1 - max(inside, 0.0) ** 0.5)
    return scatter * (count / within) ** 0.5, count, within


def quality(fit: CurveFit, curve: Curve) -> dict[str, float]:
    """R2, mean and worst relative error on a curve's measured losses."""
    known = _with_loss(curve)
    predicted, loss = fit.predict(known)[0], known.loss
    off = np.abs(predicted / loss - 1)
    return {
        "r2": float(1 - ((loss - predicted) ** 2).sum() / ((loss - loss.mean()) ** 2).sum()),
        "mean_error": float(off.mean()),
        "worst_error": float(off.max()),
    }


def _with_loss(curve: Curve) -> Curve:
    known = np.isfinite(curve.loss)
    return Curve(curve.name, curve.rates, curve.steps[known], curve.loss[known])


def curve_values(theta: Array, blocks: Blocks) -> tuple[Array, Array]:
    """(F, T) and (F, P, T) of one curve."""
    values, gradients = [], []
    for row in theta:
        floor, log_a, alpha, log_b, log_c, beta, gamma = row
        power = np.exp(log_a - alpha * np.log(blocks.total))
        reach = np.exp(log_c - gamma * blocks.log_rate) * blocks.distance
        log_near = np.log1p(reach)
        near = np.exp(-beta * log_near)
        along = blocks.gap * beta * near * reach / (1 + reach)
        b = np.exp(log_b)
        drop = b * (blocks.gap * (1 - near)).sum(1)
        values.append(floor + power + drop)
        gradients.append([
            np.ones_like(power), power, -power * np.log(blocks.total), drop, b * along.sum(1),
            b * (blocks.gap * near * log_near).sum(1), -b * (along @ blocks.log_rate),
        ])  # fmt: skip
    return np.array(values), np.array(gradients)


def _starts(law: MultiPower, loss: Array) -> Array:
    """(F, 7): C, beta and gamma on a grid; L0, A and B by linear least squares at each alpha."""
    found = []
    total = np.concatenate([b.total for b in law.blocks])
    for c, beta, gamma in ((2, 0.6, 0.6), (1, 0.4, 0.4), (10, 0.5, 0.3), (0.5, 0.8, 0.8)):
        near = [
            np.exp(-beta * np.log1p(c * np.exp(-gamma * b.log_rate) * b.distance))
            for b in law.blocks
        ]
        drop = np.concatenate(
            [(b.gap * (1 - n)).sum(1) for b, n in zip(law.blocks, near, strict=True)]
        )
        for alpha in (0.3, 0.5, 0.8):
            columns = np.stack([np.ones_like(total), total**-alpha, drop], 1)
            floor, a, b = np.linalg.lstsq(columns, loss, rcond=None)[0]
            start = [max(floor, 0.0), max(a, 1e-6), alpha, max(b, 1e-3), c, beta, gamma]
            found.append(from_parameters(dict(zip(SYMBOLS, start, strict=True))))
    return np.array(found)


def _spread(
    law: MultiPower,
    theta: Array,
    measured: Array,
    sizes: list[int],
    n_refits: int,
    seed: int,
    prior_noise: float,
) -> Array:
    """(F, P): theta of refits less theta, one Gauss-Newton step to resampled residuals.

    Residuals of a curve are moved in blocks, with random signs: neighbours stay correlated.
    """
    if not n_refits:
        return np.empty((0, theta.size))
    predicted, gradient = law.log_loss(theta[None], {})
    jacobian, residual = gradient[0].T, measured - predicted[0]
    free = np.setdiff1d(np.arange(theta.size), [index for index, _ in law.held])
    # A fit takes as many of the independent evaluations as it has parameters.
    _, shared, within = _noise_of(residual, sizes)
    freedom = max(1.0, residual.size / shared - free.size)
    inflate = (residual.size / freedom / within) ** 0.5
    rng = np.random.default_rng(seed)
    ends = np.cumsum(sizes)
    parts = []
    for size, end in zip(sizes, ends, strict=True):
        own = residual[end - size : end]
        length = min(AWAY, max(1, size // 2))
        count = -(-size // length)
        first = rng.integers(0, max(1, size - length + 1), (n_refits, count))
        index = (first[:, :, None] + np.arange(length)).reshape(n_refits, -1)[:, :size]
        signs = np.repeat(rng.choice([-1.0, 1.0], (n_refits, count)), length, 1)[:, :size]
        parts.append(own[index] * signs)
    # The scatter itself is known from so many stretches only: Student's t.
    stretches = residual.size / AWAY
    unknown = (stretches / rng.chisquare(stretches, n_refits)) ** 0.5
    noise = inflate * unknown[:, None] * np.concatenate(parts, 1)
    # The prior's rows, as uncertain as it says.
    rows = np.zeros((len(PRIOR), theta.size))
    for k, (symbol, (_, width)) in enumerate(PRIOR.items()):
        rows[k, SYMBOLS.index(symbol)] = prior_noise / width
    columns = np.concatenate([jacobian[:, free], rows[:, free]])
    noise = np.append(noise, prior_noise * rng.standard_normal((n_refits, len(PRIOR))), 1)
    scale = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    solved = np.linalg.lstsq(columns / scale, noise.T, rcond=1e-10)[0].T / scale
    spread = np.zeros((n_refits, theta.size))
    spread[:, free] = solved
    return spread
