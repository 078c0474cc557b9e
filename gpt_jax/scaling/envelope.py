"""Chinchilla's approach 1: at each compute the lowest of all training curves, then a power law.

A curve is a run measured at several points (rows that share `run`), or, where every run is
measured once, all runs of one size. Dims: F versions, K curves, M computes.

Must not import jax.
"""

import numpy as np

from gpt_jax.scaling.catalog import LawEntry
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.optima import OptimaFit, power_law, squared_error
from gpt_jax.scaling.table import RunTable, with_values

N_COMPUTES = 1500
"""Values of compute, evenly spaced in logarithm (Hoffmann et al. 2022, section 3.1)."""
FEWEST_SIZES = 3
"""Different best sizes that a power law needs, the smallest and the largest of all not counted."""


def fit_envelope(
    entry: LawEntry, runs: RunTable, cost: float, n_versions: int, seed: int
) -> OptimaFit:
    """The power law through the best sizes, with n_versions bootstrap refits over curves.

    Computes at which the smallest or the largest size of the table is best are left out: there the
    grid's edge decides, not the loss. Raises ValueError if too few sizes remain.
    """
    runs = with_values(runs, ["loss", *entry.needs])
    log_n, curves = _curves(runs)
    usable = [k for k, (log_c, _) in enumerate(curves) if log_c.size >= 2]
    if len(usable) < FEWEST_SIZES:
        raise ValueError(
            f"{entry.name} needs at least {FEWEST_SIZES} curves of two points or more (rows that "
            f"share `run`, or runs of one size), found {len(usable)}; its --columns name is run"
        )
    log_n, curves = log_n[usable], [curves[k] for k in usable]
    log_compute = np.linspace(
        min(c[0] for c, _ in curves), max(c[-1] for c, _ in curves), N_COMPUTES
    )
    losses = np.stack(
        [np.interp(log_compute, c, loss, left=np.inf, right=np.inf) for c, loss in curves]
    )
    rng = np.random.default_rng(seed)
    draws = [np.arange(len(curves))]
    draws += [rng.integers(0, len(curves), len(curves)) for _ in range(n_versions)]
    optimum, best = zip(*(_lowest(log_n[d], losses[d]) for d in draws), strict=True)
    log_optimum, log_loss = np.stack(optimum), np.stack(best)
    inside = np.isfinite(log_optimum[0])
    n_sizes = np.unique(log_optimum[0][inside]).size
    if n_sizes < FEWEST_SIZES:
        raise ValueError(
            f"{entry.name}: only {n_sizes} sizes between the smallest and the largest are best at "
            f"some compute; at least {FEWEST_SIZES} are needed: more sizes, or longer runs"
        )
    log_compute, log_optimum, log_loss = (
        log_compute[inside],
        log_optimum[:, inside],
        log_loss[:, inside],
    )
    coefficients = power_law(log_compute, log_optimum)
    return OptimaFit(
        entry=entry,
        runs=runs,
        log_compute=log_compute,
        log_optimum=log_optimum,
        log_loss=log_loss,
        coefficients=coefficients,
        objective=squared_error(log_compute, log_optimum, coefficients),
        cost=cost,
        warnings=_edge_warning(inside),
    )


def _edge_warning(inside: Array) -> tuple[str, ...]:
    share = 1 - inside.mean()
    if share < 0.5:
        return ()
    return (
        f"at {share:.0%} of the computes the smallest or largest size is best: the frontier lies "
        f"at the edge of the grid",
    )


def _curves(runs: RunTable) -> tuple[Array, list[tuple[Array, Array]]]:
    """log N (K), and (log C, log loss) in rising compute of each curve."""
    sizes = runs["n_params"]
    names = np.unique(np.array(runs.labels.get("run", ("",) * len(runs))), return_inverse=True)[1]
    several = np.bincount(names).max() > 1 and names.max() > 0
    key = names if several else np.unique(sizes, return_inverse=True)[1]
    log_n, curves = [], []
    for k in range(key.max() + 1):
        rows = np.flatnonzero(key == k)
        log_c = np.log(runs["flops"][rows])
        values, first = np.unique(log_c, return_inverse=True)
        loss = np.bincount(first, np.log(runs["loss"][rows])) / np.bincount(first)
        log_n.append(np.log(sizes[rows[0]]))
        curves.append((values, loss))
    return np.array(log_n), curves


def _lowest(log_n: Array, losses: Array) -> tuple[Array, Array]:
    """Best log N and its log loss at each compute (M); nan at the grid's edges and gaps."""
    winner = losses.argmin(0)
    lowest, size = losses[winner, np.arange(losses.shape[1])], log_n[winner]
    inside = np.isfinite(lowest) & (size > log_n.min()) & (size < log_n.max())
    return np.where(inside, size, np.nan), np.where(inside, lowest, np.nan)
