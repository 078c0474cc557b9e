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
from gpt_jax.scaling.noise import Noise, judge

SYMBOLS = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
LOGS = (1, 3, 4)
"""Parameters that theta holds as logarithms."""
SIZES = (1, 3)
"""A and B, of which losses are linear: refits differ from a fit in these, not in logarithms."""
DELTA = 3e-3
"""Huber delta on log loss: about the size of the law's residuals (the paper: 1e-3)."""
BLOCK = 48
"""Steps of a block at most."""
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
NOISE = 4.5e-3
"""Error of log loss, at most, that costs the objective as much as one width of the prior: that of
single evaluations which, if they were independent, would say as little as these. Cleaner residuals
make the prior count less (`noise.Noise.together`)."""
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
    """(F, P): theta of the refits less theta; A and B themselves where theta has logarithms"""
    objective: float
    curves: tuple[Curve, ...]

    @property
    def parameters(self) -> dict[str, float]:
        return dict(zip(SYMBOLS, map(float, printed(self.theta)), strict=True))

    def predict(self, curve: Curve) -> tuple[Array, Array]:
        """(T) losses of a curve, and (F, T) of the refits."""
        value, gradient = curve_values(self.theta[None], make_blocks(curve))
        return value[0], value[0] + self.spread @ _in_sizes(gradient[0], self.theta)

    @property
    def samples(self) -> Array:
        """(F, P): parameters of the refits, as printed."""
        found = np.array([printed(self.theta + row) for row in self.spread]).reshape(-1, 7)
        for index in SIZES:
            found[:, index] = np.maximum(np.exp(self.theta[index]) + self.spread[:, index], 0.0)
        return found


def printed(theta: Array) -> Array:
    """theta (P) -> L0, A, alpha, B, C, beta, gamma."""
    return np.where(np.isin(np.arange(7), LOGS), np.exp(np.clip(theta, -700, 700)), theta)


def _in_sizes(gradient: Array, theta: Array) -> Array:
    """A gradient (P, T) by theta as one by A and B themselves."""
    scale = np.ones(theta.size)
    scale[list(SIZES)] = np.exp(-theta[list(SIZES)])
    return gradient * scale[:, None]


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
    plain = MultiPower(law.blocks, law.held, prior=False)
    free = np.setdiff1d(np.arange(len(SYMBOLS)), [index for index, _ in fixed])

    def noise_at(theta: Array) -> Noise:
        value, gradient = plain.log_loss(theta[None], {})
        slopes = _in_sizes(gradient[0], theta)[free].T
        return judge(measured - value[0], slopes, [curve.steps for curve in known])

    def weights(noise: float) -> Array:
        return np.append(np.ones(measured.size), np.full(len(PRIOR), (noise / PRIOR_STEP) ** 2))

    if measured.size <= len(SYMBOLS) - len(fixed):
        raise ValueError(f"{measured.size} evaluations; the law has {len(SYMBOLS)} parameters")
    starts = _starts(law, np.exp(measured)) if like is None else like[None]
    rough = minimise(law, {}, rows, starts, 10 * DELTA, weights=weights(NOISE), iterations=60)
    best = rough.theta[np.argsort(rough.objective)[:2]]
    noise = min(NOISE, noise_at(best[0]).together ** 0.5)
    fine = minimise(law, {}, rows, best, DELTA, weights=weights(noise), iterations=400)
    theta = fine.theta[fine.objective.argmin()]
    spread = np.empty((0, theta.size))
    if n_refits:
        spread = _spread(plain, theta, noise_at(theta), n_refits, seed, noise)
    return CurveFit(theta, spread, float(fine.objective.min()), tuple(known))


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
    noise: Noise,
    n_refits: int,
    seed: int,
    prior_noise: float,
) -> Array:
    """(F, P): theta of refits less theta, one Gauss-Newton step to drawn noise of log loss.

    In A and B themselves, not their logarithms: the losses are linear in them, also where a fit
    has put one to 0.
    """
    jacobian = _in_sizes(law.log_loss(theta[None], {})[1][0], theta).T
    free = np.setdiff1d(np.arange(theta.size), [index for index, _ in law.held])
    rng = np.random.default_rng(seed)
    drawn = noise.draw(n_refits, rng)
    # The prior's rows, as uncertain as it says.
    rows = np.zeros((len(PRIOR), theta.size))
    for k, (symbol, (_, width)) in enumerate(PRIOR.items()):
        rows[k, SYMBOLS.index(symbol)] = prior_noise / width
    columns = np.concatenate([jacobian[:, free], rows[:, free]])
    drawn = np.append(drawn, prior_noise * rng.standard_normal((n_refits, len(PRIOR))), 1)
    scale = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    solved = np.linalg.lstsq(columns / scale, drawn.T, rcond=1e-10)[0].T / scale
    spread = np.zeros((n_refits, theta.size))
    spread[:, free] = solved
    return spread
