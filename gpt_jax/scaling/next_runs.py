"""The next runs for a target's loss: candidates over N, D and perhaps the learning rate.

The choice itself is `gpt_jax.scaling.choose`. Must not import jax.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt_jax.hints import counted
from gpt_jax.scaling.choose import Chosen, believe, plan
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.table import (
    FLOPS_PER_PARAMETER_AND_TOKEN,
    RunTable,
    cost_per_parameter_and_token,
)

NEAR = (0.5, 1.0, 2.0)
"""Sizes around the best one at the target's compute, whose losses are the target."""
GRID_SIZES, GRID_TOKENS, GRID_RATES = 9, 9, 5
BEYOND = 3.0
"""Factor by which a table's candidates go beyond its largest size and longest run."""
TARGET_SIZES, TARGET_RATES = 25, 9
"""Sizes and learning rates among which the best at the target's compute is looked for."""
SAME_RATE = 1.01
"""Learning rates within this factor are one."""


@dataclass(frozen=True)
class Candidates:
    """Runs that could be made."""

    names: list[str]
    n_params: Array
    n_tokens: Array
    cost: Array
    unit: str
    learning_rate: Array | None = None
    """None where it is no dimension of the choice"""


@dataclass(frozen=True)
class Next:
    """The chosen runs, and what is believed before and after them."""

    candidates: Candidates
    target: float
    """FLOPs"""
    loss: float
    """Predicted at the target, for the best size and learning rate"""
    deviation: float
    n_params: float
    learning_rate: float | None
    """Those best values"""
    laws: dict[str, float]
    chosen: tuple[Chosen, ...]
    """`place` is an index of candidates"""
    enough: bool
    """Whether another run buys nothing"""

    @property
    def spent(self) -> float:
        return sum(pick.cost for pick in self.chosen)

    def name(self, pick: Chosen) -> str:
        return self.candidates.names[pick.place]


def varies_rate(runs: RunTable) -> bool:
    """Whether runs of one size and length have several learning rates."""
    if "learning_rate" not in runs or np.isnan(runs["learning_rate"]).any():
        return False
    cells: dict[tuple[float, float], list[float]] = {}
    for n, d, rate in zip(runs["n_params"], runs["n_tokens"], runs["learning_rate"], strict=True):
        cells.setdefault((n, d), []).append(rate)
    return any(max(rates) / min(rates) > SAME_RATE for rates in cells.values())


def grid_candidates(runs: RunTable, rate: bool) -> Candidates:
    """A grid over sizes and tokens of the runs and up to BEYOND times beyond, at ratios that were
    nearly seen; cost 6 N D. rate: and over the learning rates of the runs."""
    sizes, tokens = (
        np.geomspace(runs[name].min(), BEYOND * runs[name].max(), count)
        for name, count in (("n_params", GRID_SIZES), ("n_tokens", GRID_TOKENS))
    )
    seen = runs["n_tokens"] / runs["n_params"]
    axes = [sizes, tokens]
    if rate:
        rates = runs["learning_rate"]
        axes.append(np.geomspace(rates.min(), rates.max(), GRID_RATES))
    n, d, *more = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    inside = (d / n >= seen.min() / 2) & (d / n <= seen.max() * 2)
    n, d = n[inside], d[inside]
    chosen = more[0][inside] if rate else None
    names = [f"N={a:.3g},D={b:.3g}" for a, b in zip(n, d, strict=True)]
    if chosen is not None:
        names = [f"{name},lr={r:.3g}" for name, r in zip(names, chosen, strict=True)]
    return Candidates(names, n, d, FLOPS_PER_PARAMETER_AND_TOKEN * n * d, "FLOPs", chosen)


def choose_next(
    runs: RunTable,
    candidates: Candidates,
    target: float,
    budget: float,
    most: int | None = None,
) -> Next:
    """The candidates that make the loss at a compute known best, for a budget in their unit.

    The target is the loss of the best size at that compute, and of half and twice as large ones;
    with a learning rate each at the best one within those of the runs.
    """
    made, ahead = len(runs), len(candidates.names)
    with_rate = candidates.learning_rate is not None
    columns = ["n_params", "n_tokens", *(["learning_rate"] if with_rate else [])]
    given = np.stack([runs[name] for name in columns], 1)
    offered = np.stack([vars(candidates)[name] for name in columns], 1)
    grid = _at_target(runs, target, with_rate)
    observed = np.arange(made)
    places = np.log(np.concatenate([given, offered, np.exp(grid)]))
    first = believe(places, observed, runs["loss"])
    best = grid[int(np.argmin(first.mean[made + ahead :]))]
    near = np.log(NEAR)[:, None] * np.array([1.0, -1.0, *([0.0] if with_rate else [])]) + best
    belief = believe(np.concatenate([places[: made + ahead], near]), observed, runs["loss"])
    targets = made + ahead + np.arange(len(NEAR))
    where = made + np.arange(ahead)
    cost = np.full(belief.mean.size, np.inf)
    cost[where] = candidates.cost
    chosen, enough = plan(belief, targets, where, cost, budget, most=most)
    return Next(
        candidates=candidates,
        target=target,
        loss=float(belief.mean[targets[1]]),
        deviation=belief.deviation(targets),
        n_params=float(np.exp(best[0])),
        learning_rate=float(np.exp(best[2])) if with_rate else None,
        laws=belief.weights,
        chosen=tuple(dataclasses.replace(pick, place=pick.place - made) for pick in chosen),
        enough=enough,
    )


def _at_target(runs: RunTable, target: float, with_rate: bool) -> Array:
    """(places, variables), logarithms: sizes, and learning rates, at the target's compute."""
    nd = np.log(target / cost_per_parameter_and_token(runs))
    ratio = np.log(runs["n_tokens"] / runs["n_params"])
    sizes = (nd - np.linspace(ratio.min(), ratio.max(), TARGET_SIZES)) / 2
    if not with_rate:
        return np.stack([sizes, nd - sizes], 1)
    logs = np.log(runs["learning_rate"])
    rates = np.linspace(logs.min(), logs.max(), TARGET_RATES)
    n, r = (grid.ravel() for grid in np.meshgrid(sizes, rates, indexing="ij"))
    return np.stack([n, nd - n, r], 1)


def text(found: Next, budget: float) -> list[str]:
    """For a terminal."""
    candidates = found.candidates
    rate = "" if found.learning_rate is None else f", learning rate {found.learning_rate:.3g}"
    lines = [
        f"at {found.target:.3g} FLOPs the runs predict a loss of {found.loss:.4f} (N "
        f"{found.n_params:.3g}{rate}), standard deviation {found.deviation:.4f}, over "
        f"{len(found.laws)} laws:"
    ]
    top = sorted(found.laws.items(), key=lambda law: -law[1])[:3]
    lines += [f"  {weight:.2f}  {name}" for name, weight in top]
    if found.chosen:
        width = max(len(found.name(pick)) for pick in found.chosen)
        lines.append(f"  {'run':{width}s} {candidates.unit:>10s}  standard deviation after")
    for pick in found.chosen:
        share = 1 - pick.after / pick.before
        lines.append(
            f"  {found.name(pick):{width}s} {pick.cost:10.3g}  {pick.after:.4f} ({-share:+.0%})"
        )
    count = counted(len(found.chosen), "run")
    lines.append(f"{count}, {found.spent:.3g} of {budget:.3g} {candidates.unit}")
    if found.enough:
        lines.append("another run buys nothing: none would narrow the target by 1%")
    elif not found.chosen:
        cheapest = float(candidates.cost.min())
        lines.append(f"the cheapest candidate costs {cheapest:.3g} {candidates.unit}")
    return lines


def to_json(found: Next) -> dict[str, Any]:
    """Everything."""
    return {
        "target_flops": found.target,
        "predicted_loss": found.loss,
        "n_params": found.n_params,
        "learning_rate": found.learning_rate,
        "standard_deviation": found.deviation,
        "laws": found.laws,
        "unit": found.candidates.unit,
        "runs": [
            {"run": found.name(p), "cost": p.cost, "before": p.before, "after": p.after}
            for p in found.chosen
        ],
        "another_run_buys_nothing": found.enough,
    }


def picked(found: Next, values: Array) -> Sequence[float]:
    """A quantity of the chosen candidates."""
    return [float(values[pick.place]) for pick in found.chosen]
