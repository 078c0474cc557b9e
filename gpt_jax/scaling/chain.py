"""(N, D) -> a task's loss -> its score, with intervals through both steps.

Step 1: a parametric law of the loss, fitted to the mean of each run's last evaluations. Step 2: a
function of the loss, fitted to all evaluations of the runs (OLMo's ladder, arXiv 2412.04403; error
from loss, 2403.08540). In a refit a run is given another run's residuals in both steps, so that
what the steps have in common stays. Dims: F refits (row 0 the fit), R runs, K evaluations.

Must not import jax.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.catalog import CHINCHILLA_DELTA, LAWS
from gpt_jax.scaling.fit import LawFit, fit_law
from gpt_jax.scaling.functions import LINKS, ErrorExponential, Sigmoid, fit_link
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.minimise import minimise
from gpt_jax.scaling.table import make_table
from gpt_jax.scaling.uncertainty import LEVELS, chunks

LAST_FOR_NOISE = 10
"""Evaluations at the end of a run whose scatter is the noise of one (2412.04403, section 5)."""


@dataclass(frozen=True)
class RunCurve:
    """The evaluations of one run, in order."""

    name: str
    n_params: float
    n_tokens: float
    """Up to the last evaluation."""
    flops: float
    """nan where it is not known"""
    loss: Array
    """(K)"""
    score: Array
    """(K); nan where the chain has no second step"""


@dataclass(frozen=True)
class Resampled:
    """For each refit and run, the run whose residuals it is given in both steps, and their sign.

    The runs' sizes and data stay as they are: few runs, drawn with replacement, often leave the
    exponents open, and the intervals of such draws are too wide.
    """

    owner: Array
    """(F, R)"""
    signs: Array
    """(F, R): 1 or -1"""


@dataclass(frozen=True)
class Settings:
    """Settings of the fit: how evaluations become points, and the refits."""

    average: int = 5
    """Evaluations that are averaged: the last of a run (step 1), a trailing window (step 2)."""
    skip: float = 0.1
    """Share of a run's first evaluations that step 2 leaves out."""
    link: str = "sigmoid"
    ideal: float | None = 1.0
    """Score at no loss, added to step 2 as a point; none = no such point."""
    n_refits: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Prediction:
    """A predicted number: the law's interval, and that of one measurement, which scatters."""

    value: float
    intervals: dict[int, tuple[float, float]]
    with_noise: dict[int, tuple[float, float]]


@dataclass(frozen=True)
class Chain:
    """Both fitted steps of one task, and their predictions for the target."""

    name: str
    runs: tuple[RunCurve, ...]
    settings: Settings
    target: RunCurve | None
    step1: LawFit
    step1_flops: LawFit | None
    link: Sigmoid | ErrorExponential | None
    theta2: Array
    """(F, P) of step 2; empty without one"""
    points: tuple[Array, Array]
    """Losses and scores that step 2 was fitted to, without the ideal point"""
    noise: tuple[float, float]
    """Standard deviation of one evaluation's loss and score"""
    loss: Prediction | None
    score_from_loss: Prediction | None
    """Step 2 at the target's measured loss."""
    score: Prediction | None
    score_by_flops: Prediction | None
    refits1: Array

    @property
    def actual(self) -> tuple[float, float]:
        """The target's measured loss (mean of its last) and score; nan where not measured."""
        return last(self.target, self.settings.average) if self.target else (math.nan, math.nan)


def fit_chain(
    name: str, runs: Sequence[RunCurve], target: RunCurve | None, settings: Settings
) -> Chain:
    """Fit both steps and predict the target; raises ValueError if runs are too few."""
    resampled = _resample(len(runs), settings)
    ends = [last(run, settings.average)[0] for run in runs]
    step1 = fit_law(
        LAWS["chinchilla-parametric"],
        make_table(
            n_params=[r.n_params for r in runs], n_tokens=[r.n_tokens for r in runs], loss=ends
        ),
    )
    refits1 = _refits(step1, resampled)
    step1_flops, refits_flops = None, None
    if all(math.isfinite(run.flops) for run in runs):
        entry = dataclasses.replace(LAWS["compute-power"], delta=CHINCHILLA_DELTA)
        step1_flops = fit_law(entry, make_table(flops=[r.flops for r in runs], loss=ends))
        refits_flops = _refits(step1_flops, resampled)
    scored = not np.isnan(runs[0].score).all()
    link = LINKS[settings.link] if scored else None
    points = _points(runs, settings)
    theta2 = _fit_step2(link, points, resampled, settings) if link else np.empty((0, 0))
    noise = _noise(runs)
    found: dict[str, Prediction | None] = {}
    if target is not None:
        found = _predict(target, step1, refits1, step1_flops, refits_flops, link, theta2, noise,
                         settings)  # fmt: skip
    return Chain(
        name=name, runs=tuple(runs), settings=settings, target=target, step1=step1,
        step1_flops=step1_flops, link=link, theta2=theta2, points=points[:2],
        noise=noise, loss=found.get("loss"), score_from_loss=found.get("score_from_loss"),
        score=found.get("score"), score_by_flops=found.get("score_by_flops"), refits1=refits1,
    )  # fmt: skip


def _resample(n_runs: int, settings: Settings) -> Resampled:
    rng = np.random.default_rng(settings.seed)
    shape = settings.n_refits, n_runs
    return Resampled(rng.integers(0, n_runs, shape), rng.choice([-1.0, 1.0], shape))


def last(run: RunCurve, average: int) -> tuple[float, float]:
    """Means of a run's last evaluations: loss and score; nan without any."""
    if not run.loss.size:
        return math.nan, math.nan
    return float(run.loss[-average:].mean()), float(run.score[-average:].mean())


def trailing_mean(values: Array, window: int) -> Array:
    """Mean of each value and those before it, at most `window`."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, values.size + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def evaluate(law_fit: LawFit, theta: Array, run: RunCurve) -> Array:
    """(F): the loss of a run's size and data under step 1."""
    given = {"n_params": run.n_params, "n_tokens": run.n_tokens, "flops": run.flops}
    x = {v: np.array([math.log(given[v])]) for v in law_fit.law.variables}
    return np.exp(law_fit.law.log_loss(theta, x)[0][:, 0])


def apply_link(link: Sigmoid | ErrorExponential, theta: Array, loss: Array) -> Array:
    """(F): score at each version's own loss (F)."""
    return link.values(theta, {"loss": loss[:, None]})[0][:, 0]


def _refits(fit: LawFit, resampled: "Resampled") -> Array:
    """(F, P): the fit, then refits to losses with the residuals of other runs."""
    problem = fit.problem
    residual = problem.residuals(fit.theta)
    inflate = _left_out(residual.size, fit.theta.size)
    noise = inflate * resampled.signs * residual[resampled.owner]
    measured = problem.measured - residual + noise
    start = np.tile(fit.theta, (len(measured), 1))
    refits = minimise(problem.law, problem.x, measured, start, problem.delta)
    return np.concatenate([fit.theta[None], refits.theta])


def _left_out(n_runs: int, n_free: int) -> float:
    """How much larger residuals are of runs that a fit has not seen: 1 / (1 - mean leverage)."""
    return n_runs / max(1, n_runs - n_free)


def _points(runs: Sequence[RunCurve], settings: Settings) -> tuple[Array, Array, Array]:
    """Losses and scores of all evaluations that step 2 takes, and the run each belongs to."""
    losses, scores, owner = [], [], []
    for index, run in enumerate(runs):
        first = math.ceil(settings.skip * run.loss.size)
        losses.append(trailing_mean(run.loss[first:], settings.average))
        scores.append(trailing_mean(run.score[first:], settings.average))
        owner.append(np.full(losses[-1].size, index))
    return np.concatenate(losses), np.concatenate(scores), np.concatenate(owner)


def _fit_step2(
    link: Sigmoid | ErrorExponential,
    points: tuple[Array, Array, Array],
    resampled: "Resampled",
    settings: Settings,
) -> Array:
    """(F, P): the fit, then refits to scores with the residuals of other runs."""
    loss, score, owner = points
    n_points = loss.size
    if settings.ideal is not None and settings.link == "sigmoid":
        loss, score = np.append(loss, 0.0), np.append(score, settings.ideal)
    theta = fit_link(link, loss, score, np.ones(loss.size))
    fitted = link.values(theta[None], {"loss": loss})[0][0]
    moved = _moved_residuals((score - fitted)[:n_points], owner)
    inflate = _left_out(len(moved), theta.size)
    found = [theta[None]]
    for rows in chunks(np.arange(settings.n_refits), loss.size):
        measured = np.tile(score, (len(rows), 1))
        lent = moved[resampled.owner[rows][:, owner], np.arange(n_points)]
        noise = inflate * resampled.signs[rows][:, owner] * lent
        measured[:, :n_points] = fitted[:n_points] + noise
        start = np.tile(theta, (len(rows), 1))
        refits = minimise(
            link, {"loss": loss}, measured, start, np.inf, space="linear", iterations=30
        )
        found.append(refits.theta)
    return np.concatenate(found)


def _moved_residuals(residual: Array, owner: Array) -> Array:
    """(R, K): each run's residuals, stretched over the evaluations of every run."""
    count = int(owner.max()) + 1
    place = np.concatenate([np.linspace(0, 1, (owner == j).sum()) for j in range(count)])
    return np.stack(
        [np.interp(place, place[owner == j], residual[owner == j]) for j in range(count)]
    )


def _noise(runs: Sequence[RunCurve]) -> tuple[float, float]:
    """Scatter of the last evaluations of the run of most compute; nothing is known of it, and 0
    returned, where that was evaluated once."""
    dearest = max(runs, key=lambda run: run.n_params * run.n_tokens)
    if dearest.loss.size < 2:
        return 0.0, 0.0
    tail = slice(-LAST_FOR_NOISE, None)
    return float(dearest.loss[tail].std(ddof=1)), float(dearest.score[tail].std(ddof=1))


def _predict(
    target: RunCurve,
    step1: LawFit,
    refits1: Array,
    step1_flops: LawFit | None,
    refits_flops: Array | None,
    link: Sigmoid | ErrorExponential | None,
    theta2: Array,
    noise: tuple[float, float],
    settings: Settings,
) -> dict[str, Prediction | None]:
    rng = np.random.default_rng(settings.seed + 1)
    count = min(settings.average, target.loss.size) if target.loss.size else settings.average
    sd = np.array(noise) / math.sqrt(count)
    loss = evaluate(step1, refits1, target)
    found: dict[str, Prediction | None] = {"loss": _prediction(loss, sd[0], rng)}
    if link is None:
        return found
    found["score"] = _prediction(apply_link(link, theta2, loss), sd[1], rng)
    measured = target.loss[-settings.average :]
    if measured.size and math.isfinite(measured.mean()):
        at = np.full(len(theta2), measured.mean())
        found["score_from_loss"] = _prediction(apply_link(link, theta2, at), sd[1], rng)
    if step1_flops is not None and refits_flops is not None and math.isfinite(target.flops):
        by_flops = evaluate(step1_flops, refits_flops, target)
        found["score_by_flops"] = _prediction(apply_link(link, theta2, by_flops), sd[1], rng)
    return found


def _prediction(samples: Array, sd: float, rng: np.random.Generator) -> Prediction:
    refits = samples[1:]
    if not refits.size:
        return Prediction(float(samples[0]), {}, {})
    noisy = refits + sd * rng.standard_normal(refits.size)
    return Prediction(float(samples[0]), _edges(refits), _edges(noisy))


def _edges(samples: Array) -> dict[int, tuple[float, float]]:
    found = {}
    for level in LEVELS:
        low, high = np.nanpercentile(samples, [50 - level / 2, 50 + level / 2])
        found[level] = (float(low), float(high))
    return found
