"""How many times the compute, tokens or seconds one ladder needs for the losses of another.

Must not import jax.
"""

from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.best import SAME_COMPUTE
from gpt_jax.scaling.fit import minimum
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.pair_law import SHARED, PairLaw
from gpt_jax.scaling.rungs import Ladder, SeedTest, seed_tests
from gpt_jax.scaling.uncertainty import LEVELS, Problem, profile

COSTS = {"compute": "flops", "tokens": "n_tokens", "seconds": "training_seconds"}
"""{what is counted: column}"""
MODEL = "one floor"
"""Shared by default: the irreducible loss of one text is one number."""
SIMPLER = "one multiplier"
POINTS = 9
"""Costs at which the multiplier is computed, besides the rungs."""
BEYOND = 1.05
"""Factor beyond a ladder's runs from which a multiplier is called extrapolated."""


@dataclass(frozen=True)
class Multiplier:
    """Cost that A needs for one of B's losses, as a multiple of B's cost."""

    cost: float
    """Cost of B: FLOPs, tokens or seconds"""
    loss: float
    value: float
    intervals: dict[int, tuple[float, float]]
    """{level in percent: (low, high)}; nan: open"""
    beyond: float
    """Factor by which the cost lies beyond the runs of the ladder that is extrapolated furthest;
    1 within the runs"""


@dataclass(frozen=True)
class HeldOut:
    """The most expensive rung of a ladder, predicted by both ladders without their most expensive
    rungs."""

    ladder: str
    cost: float
    measured: float
    """Mean over seeds"""
    predicted: float
    interval: tuple[float, float]
    """95%, of the curve; a single run scatters around it besides"""


@dataclass(frozen=True)
class CostComparison:
    """The comparison in one kind of cost."""

    kind: str
    """A key of COSTS"""
    shared: str
    problem: Problem
    theta: Array
    target: Multiplier
    asked: str
    """Description of the target, as printed: `at loss ...` or `at ... of B`"""
    curve: tuple[Multiplier, ...]
    checks: dict[str, float]
    """{question: p-value of the F-test against it}"""
    held_out: tuple[HeldOut, ...]

    @property
    def law(self) -> PairLaw:
        assert isinstance(self.problem.law, PairLaw)
        return self.problem.law


@dataclass(frozen=True)
class Comparison:
    """Results of comparing two ladders."""

    a: Ladder
    b: Ladder
    metric: str
    costs: tuple[CostComparison, ...]
    left_out: dict[str, str]
    """{kind of cost: why it is not compared}"""
    seeds: tuple[SeedTest, ...]
    warnings: tuple[str, ...]


def compare(
    a: Ladder,
    b: Ladder,
    *,
    metric: str = "loss",
    at_loss: float | None = None,
    at_flops: float | None = None,
    shared: str | None = None,
) -> Comparison:
    """Compare two ladders of comparable losses (`rungs.check_comparable`).

    at_loss, at_flops: the target; without either the largest compute that both ladders have.
    shared: a key of pair_law.SHARED; none = MODEL, or SIMPLER where the runs are too few for it.
    Raises ValueError where the runs are too few, or never reach the target.
    """
    costs, left_out = [], {}
    target_loss = at_loss
    for kind, column in COSTS.items():
        lacking = [
            ladder.name
            for ladder in (a, b)
            if column not in ladder.runs or np.isnan(ladder.runs[column]).any()
        ]
        if lacking:
            left_out[kind] = f"{' and '.join(lacking)}: runs without {column}"
            continue
        if min(np.ptp(np.log(ladder.runs[column])) for ladder in (a, b)) < np.log(SAME_COMPUTE):
            left_out[kind] = f"{column} is the same in all runs of a ladder"
            continue
        at = at_flops if kind == "compute" else None
        found = _compare_cost(a, b, kind, target_loss, at, shared)
        costs.append(found)
        target_loss = target_loss or found.target.loss  # of compute: tokens and seconds follow it
    return Comparison(
        a=a,
        b=b,
        metric=metric,
        costs=tuple(costs),
        left_out=left_out,
        seeds=tuple(seed_tests(a, b)),
        warnings=tuple(_warnings(a, b, costs)),
    )


def _compare_cost(
    a: Ladder, b: Ladder, kind: str, at_loss: float | None, at: float | None, shared: str | None
) -> CostComparison:
    column = COSTS[kind]
    x_a, x_b = np.log(a.runs[column]), np.log(b.runs[column])
    n_runs, n_rungs = x_a.size + x_b.size, a.n_rungs + b.n_rungs
    if shared is None:
        shared = MODEL if n_rungs > max(SHARED[MODEL]) + 1 else SIMPLER
    needed = max(SHARED[shared]) + 2
    if n_rungs < needed:
        raise ValueError(
            f"{a.name} and {b.name} have {n_rungs} rungs in all; two curves that share "
            f"'{shared}' take at least {needed}"
        )
    problem = _problem(a, b, column, shared)
    theta, objective = minimum(problem)
    law = problem.law
    assert isinstance(law, PairLaw)
    log_at = np.log(at) if at is not None else min(x_a.max(), x_b.max())
    asked = f"at {np.exp(log_at):.3g} of B" if at_loss is None else f"at loss {at_loss:.4g}"
    if at_loss is not None and not law.reaches(theta, float(np.log(at_loss))):
        floor = float(np.exp(theta[list(law.slots[4:])].max()))
        raise ValueError(
            f"loss {at_loss:g}: by the fitted curves no {kind} reaches it, their irreducible loss "
            f"is {floor:.4f}; give another --at-loss, or --at-flops"
        )
    ranges = (x_a.max(), x_b.max()), (x_a.min(), x_b.min())
    lowest, highest = min(ranges[1]), max(ranges[0])
    points = np.linspace(lowest, highest, POINTS)
    target, *curve = _multipliers(problem, theta, at_loss, np.append(log_at, points), ranges)
    return CostComparison(
        kind=kind,
        shared=shared,
        problem=problem,
        theta=theta,
        target=target,
        asked=asked,
        curve=tuple(curve),
        checks=_checks(a, b, column, shared, objective, n_runs, theta.size),
        held_out=_hold_out(a, b, column, shared),
    )


def _problem(a: Ladder, b: Ladder, column: str, shared: str) -> Problem:
    log_x = np.log(np.append(a.runs[column], b.runs[column]))
    which = np.repeat([0.0, 1.0], [len(a.runs), len(b.runs)])
    loss = np.append(a.runs["loss"], b.runs["loss"])
    law = PairLaw(shared, float(log_x.mean()))
    return Problem(law, {"x": log_x, "ladder": which}, loss, float("inf"))


def _multipliers(
    problem: Problem,
    theta: Array,
    at_loss: float | None,
    points: Array,
    ranges: tuple[tuple[float, float], tuple[float, float]],
) -> list[Multiplier]:
    """At each of B's costs (K, logarithms); the first at a loss instead, where one is given."""
    law = problem.law
    assert isinstance(law, PairLaw)

    def logs(at: Array) -> Array:
        found = law.log_multiplier(at, points)
        if at_loss is not None:
            found[:, 0] = law.log_multiplier_at(at, at_loss)
        return found

    edges = np.exp(profile(problem, theta, logs))
    logs_now = logs(theta[None])[0]
    values, spent_b = np.exp(logs_now), points.copy()
    if at_loss is not None:
        spent_b[0] = law.log_cost(theta[None], 1, np.log([at_loss]))[0, 0]
    losses = law.curve(theta[None], 1, spent_b)[0]
    spent_a = spent_b + logs_now
    (top_a, top_b), (low_a, low_b) = ranges
    beyond = np.exp(
        np.max([spent_a - top_a, low_a - spent_a, spent_b - top_b, low_b - spent_b], 0).clip(0)
    )
    return [
        Multiplier(
            float(np.exp(spent_b[k])),
            float(np.exp(losses[k])),
            float(values[k]),
            {level: (float(e[0]), float(e[1])) for level, e in zip(LEVELS, edges[k], strict=True)},
            float(beyond[k]),
        )
        for k in range(values.size)
    ]


def _checks(
    a: Ladder, b: Ladder, column: str, shared: str, objective: float, n_runs: int, n_free: int
) -> dict[str, float]:
    """p-values of F-tests: each simpler law against the fitted one, and this against own floors."""
    names = list(SHARED)
    questions = {
        "one curve": "A and B are the same",
        "one multiplier": "the multiplier is the same at every cost",
    }
    found = {}
    for simpler in names[: names.index(shared)]:
        _, higher = minimum(_problem(a, b, column, simpler))
        extra = n_free - max(SHARED[simpler]) - 1
        found[questions[simpler]] = _f_test(higher, objective, extra, n_runs - n_free)
    if shared == MODEL and n_runs > n_free + 1:
        _, lower = minimum(_problem(a, b, column, "own floors"))
        found["A and B have one irreducible loss"] = _f_test(
            objective, lower, 1, n_runs - n_free - 1
        )
    return found


def _f_test(simple: float, full: float, extra: int, freedom: int) -> float:
    from scipy.special import fdtrc

    if freedom < 1:
        return float("nan")
    ratio = max(simple - full, 0.0) / extra / max(full / freedom, 1e-300)
    return float(fdtrc(extra, freedom, ratio))


def _hold_out(a: Ladder, b: Ladder, column: str, shared: str) -> tuple[HeldOut, ...]:
    """Both dearest rungs predicted from the others; empty where too few remain."""
    cheap = [_without_dearest(ladder) for ladder in (a, b)]
    if min(c.n_rungs for c in cheap) < 2 or sum(c.n_rungs for c in cheap) < max(SHARED[shared]) + 2:
        return ()
    problem = _problem(cheap[0], cheap[1], column, shared)
    theta, _ = minimum(problem)
    law = problem.law
    assert isinstance(law, PairLaw)
    rows = [ladder.rung == ladder.n_rungs - 1 for ladder in (a, b)]
    at = [np.median(x.runs[column][r]) for x, r in zip((a, b), rows, strict=True)]

    def logs(trial: Array) -> Array:
        sides = [law.curve(trial, k, np.log(at[k : k + 1])) for k in (0, 1)]
        return np.concatenate(sides, 1)

    edges = np.exp(profile(problem, theta, logs))[:, -1]
    predicted = np.exp(logs(theta[None])[0])
    return tuple(
        HeldOut(
            ladder.name,
            float(at[k]),
            float(ladder.runs["loss"][rows[k]].mean()),
            float(predicted[k]),
            (float(edges[k, 0]), float(edges[k, 1])),
        )
        for k, ladder in enumerate((a, b))
    )


def _without_dearest(ladder: Ladder) -> Ladder:
    kept = ladder.rung < ladder.n_rungs - 1
    return Ladder(ladder.name, ladder.runs.take(kept), ladder.rung[kept])


def _warnings(a: Ladder, b: Ladder, costs: list[CostComparison]) -> list[str]:
    found = []
    for cost in costs:
        if cost.target.beyond > BEYOND:
            found.append(
                f"{cost.kind}: the multiplier {cost.asked} lies {cost.target.beyond:.2g} times "
                f"beyond a ladder's runs"
            )
        floors = cost.checks.get("A and B have one irreducible loss", 1.0)
        if floors < 0.05:
            found.append(
                f"{cost.kind}: the runs speak against one irreducible loss (p = {floors:.2g}); "
                f"--floors own gives each its own"
            )
    for ladder in (a, b):
        means = [ladder.runs["loss"][ladder.rung == k].mean() for k in range(ladder.n_rungs)]
        worse = [ladder.compute[k] for k in range(1, len(means)) if means[k] >= min(means[:k])]
        if worse:
            found.append(
                f"{ladder.name}: the rung of {worse[0]:.3g} FLOPs is no better than a cheaper one"
            )
    return found
