"""Chinchilla's approach 1: at each compute the lowest of all training curves, then a power law.

A curve is a run measured at several points (rows that share `run`), or, where every run is
measured once, all runs of one size. Which curve is lowest is settled by noise where curves lie
close, and at the ends of the grid the next size is missing; so the power law is fitted only where
it lies itself well inside the grid, and its intervals come from curves simulated under a law of N
and D. Dims: F versions, K curves, M computes, G points of a curve.

Must not import jax.
"""

from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.catalog import LAWS, LawEntry
from gpt_jax.scaling.fit import LawFit, fit_frontier, fit_law
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.optima import OptimaFit, power_law, squared_error
from gpt_jax.scaling.table import RunTable, make_table, with_values

N_COMPUTES = 1500
"""Values of compute, evenly spaced in logarithm (Hoffmann et al. 2022, section 3.1)."""
FEWEST_SIZES = 3
"""Different best sizes that a power law needs, the smallest and the largest of all not counted."""
POINTS = 241
"""Points of a curve at which its deviation from the law is known: enough to find its extremes."""
EVERY = 6
"""Stride: the law is fitted to every EVERY-th of these points."""
LAW = "chinchilla-parametric"
ABSORBED = 4
"""Curves' worth of deviation that the law's five parameters take up: those of size more than those
of tokens, in which curves differ less. With it intervals cover at their nominal rate (tests)."""
ROUNDS = 20
"""Most rounds of choosing the computes and fitting the line; a few are enough."""


@dataclass(frozen=True)
class Curves:
    """Training curves on a common grid of compute."""

    log_compute: Array
    """(M)"""
    log_n: Array
    """(K)"""
    log_loss: Array
    """(K, M), infinite beyond a curve's ends"""
    place: Array
    """(K, M): how far along its curve a compute lies, as an index of POINTS"""
    points: Array
    """(K, G): log C of points evenly spaced along each curve"""
    log_loss_at_points: Array
    """(K, G)"""


def fit_envelope(
    entry: LawEntry, runs: RunTable, cost: float, n_versions: int, seed: int
) -> OptimaFit:
    """The power law through the best sizes, with n_versions simulated ones.

    cost: FLOPs per parameter and token. Raises ValueError if there are too few curves or sizes.
    """
    runs = with_values(runs, ["loss", *entry.needs])
    curves = _curves(entry, runs)
    log_optimum, lowest = _lowest(curves.log_n, curves.log_loss)
    coefficients, inside = _line_inside(curves, log_optimum)
    n_sizes = np.unique(log_optimum[inside]).size
    if n_sizes < FEWEST_SIZES:
        raise ValueError(
            f"{entry.name}: only {n_sizes} sizes are best where the power law lies inside the grid "
            f"of sizes; at least {FEWEST_SIZES} are needed: more sizes, or longer runs"
        )
    optima, losses, lines = log_optimum[None], lowest[None], coefficients[None]
    if n_versions:
        simulated = _simulate(curves, cost, n_versions, seed)
        optima = np.concatenate([optima, log_optimum - simulated[0]])
        losses = np.concatenate([losses, lowest - simulated[1]])
        lines = np.concatenate([lines, coefficients - simulated[2]])
    log_compute = curves.log_compute[inside]
    return OptimaFit(
        entry=entry,
        runs=runs,
        log_compute=log_compute,
        log_optimum=optima[:, inside],
        log_loss=losses[:, inside],
        coefficients=lines,
        objective=squared_error(log_compute, optima[:1, inside], lines),
        cost=cost,
        warnings=_edge_warning(inside),
    )


def _edge_warning(inside: Array) -> tuple[str, ...]:
    share = 1 - inside.mean()
    if share < 0.5:
        return ()
    return (
        f"at {share:.0%} of the computes the best size is near the smallest or the largest: the "
        f"frontier lies at the edge of the grid",
    )


def _curves(entry: LawEntry, runs: RunTable) -> Curves:
    """Curves of two points or more; raises ValueError if there are too few."""
    sizes = runs["n_params"]
    names = np.unique(np.array(runs.labels.get("run", ("",) * len(runs))), return_inverse=True)[1]
    several = np.bincount(names).max() > 1 and names.max() > 0
    key = names if several else np.unique(sizes, return_inverse=True)[1]
    log_n, found = [], []
    for k in range(key.max() + 1):
        rows = np.flatnonzero(key == k)
        log_c, first = np.unique(np.log(runs["flops"][rows]), return_inverse=True)
        if log_c.size > 1:
            loss = np.bincount(first, np.log(runs["loss"][rows])) / np.bincount(first)
            log_n.append(np.log(sizes[rows[0]]))
            found.append((log_c, loss))
    if len(found) < FEWEST_SIZES:
        raise ValueError(
            f"{entry.name} needs at least {FEWEST_SIZES} curves of two points or more (rows that "
            f"share `run`, or runs of one size), found {len(found)}; its --columns name is run"
        )
    low, high = (np.array([c[end] for c, _ in found])[:, None] for end in (0, -1))
    log_compute = np.linspace(low.min(), high.max(), N_COMPUTES)
    points = low + (high - low) * np.linspace(0, 1, POINTS)
    place = np.rint((log_compute - low) / (high - low) * (POINTS - 1)).astype(int)
    return Curves(
        log_compute=log_compute,
        log_n=np.array(log_n),
        log_loss=np.stack(
            [np.interp(log_compute, c, loss, left=np.inf, right=np.inf) for c, loss in found]
        ),
        place=np.clip(place, 0, POINTS - 1),
        points=points,
        log_loss_at_points=np.stack(
            [np.interp(at, c, loss) for at, (c, loss) in zip(points, found, strict=True)]
        ),
    )


def _lowest(log_n: Array, log_loss: Array) -> tuple[Array, Array]:
    """Best log N and its log loss at each compute (M); nan where no curve is."""
    winner = log_loss.argmin(0)
    lowest = log_loss[winner, np.arange(log_loss.shape[1])]
    known = np.isfinite(lowest)
    return np.where(known, log_n[winner], np.nan), np.where(known, lowest, np.nan)


def _line_inside(curves: Curves, log_optimum: Array) -> tuple[Array, Array]:
    """(2), (M): the power law, and the computes at which it lies well inside the grid of sizes.

    Well inside: by a step of the grid, and by the scatter of the best sizes. Choosing computes by
    the law, and not by which size happens to be best, keeps the exponent from shrinking.
    """
    sizes, log_c = np.unique(curves.log_n), curves.log_compute
    step = np.ptp(sizes) / max(sizes.size - 1, 1)
    known = np.isfinite(log_optimum)
    inside = known & (log_optimum > sizes[0]) & (log_optimum < sizes[-1])
    line = np.full(2, np.nan)
    for _ in range(ROUNDS):
        if np.unique(log_optimum[inside]).size < 2:
            return np.full(2, np.nan), np.zeros_like(inside)
        line = power_law(log_c[inside], log_optimum[None, inside])[0]
        predicted = line[0] + line[1] * log_c
        margin = max(step, (log_optimum - predicted)[inside].std())
        chosen = known & (predicted > sizes[0] + margin) & (predicted < sizes[-1] - margin)
        if (chosen == inside).all():
            break
        inside = chosen
    return line, inside


def _simulate(
    curves: Curves, cost: float, n_versions: int, seed: int
) -> tuple[Array, Array, Array]:
    """Errors of the approach in n_versions studies simulated under a law fitted to the curves.

    Estimate minus truth of log N_opt (F, M), of its log loss (F, M), and of the power law's
    coefficients (F, 2): bias and noise together. A simulated curve is the law's curve plus the
    deviation from the law of a curve drawn at random.
    """
    log_n = np.broadcast_to(curves.log_n[:, None], curves.points.shape)
    law = _law(curves, cost)
    deviation = curves.log_loss_at_points - _log_loss(law, log_n, curves.points, cost)
    # The law's parameters have taken up some of what whole curves deviate.
    n_curves, offset = len(deviation), deviation.mean(1, keepdims=True)
    deviation += offset * (np.sqrt(n_curves / max(n_curves - ABSORBED, 1)) - 1)
    smooth = _log_loss(law, curves.log_n[:, None], curves.log_compute[None], cost)
    smooth = np.where(np.isfinite(curves.log_loss), smooth, np.inf)
    frontier = fit_frontier(law, law.theta[None][:0], cost)
    assert frontier is not None
    best = np.array([frontier.size(np.array([c]))[0] for c in curves.log_compute])
    best_loss = np.array([frontier.loss(np.array([c]))[0] for c in curves.log_compute])
    true_line = power_law(curves.log_compute, best[None])[0]
    rng, found = np.random.default_rng(seed), []
    for _ in range(n_versions):
        drawn = deviation[rng.integers(0, n_curves, n_curves)]
        optimum, lowest = _lowest(
            curves.log_n, smooth + np.take_along_axis(drawn, curves.place, axis=1)
        )
        line, _ = _line_inside(curves, optimum)
        found.append((optimum - best, lowest - best_loss, line - true_line))
    optima, losses, lines = zip(*found, strict=True)
    return np.stack(optima), np.stack(losses), np.stack(lines)


def _law(curves: Curves, cost: float) -> LawFit:
    log_c, log_loss = curves.points[:, ::EVERY], curves.log_loss_at_points[:, ::EVERY]
    log_n = np.broadcast_to(curves.log_n[:, None], log_c.shape)
    values = {"n_params": log_n, "n_tokens": log_c - np.log(cost) - log_n, "loss": log_loss}
    return fit_law(LAWS[LAW], make_table(**{k: np.exp(v).ravel() for k, v in values.items()}))


def _log_loss(law: LawFit, log_n: Array, log_c: Array, cost: float) -> Array:
    """Log loss under the law, at log sizes and log computes that broadcast with each other."""
    log_n, log_c = np.broadcast_arrays(log_n, log_c)
    x = {"n_params": log_n.ravel(), "n_tokens": (log_c - np.log(cost) - log_n).ravel()}
    return law.law.log_loss(law.theta[None], x)[0][0].reshape(log_n.shape)
