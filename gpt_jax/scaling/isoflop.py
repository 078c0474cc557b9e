"""Chinchilla's approach 2: at each compute a parabola through the losses, then a power law.

The same serves the best learning rate or batch size against compute. For N and D the parabola is
a second-order picture of a curve that is not symmetric, so its minimum is biased by the grid's
position and width; `parabola_bias` says by how much under a fitted law. Dims: F versions, M
computes, R runs of one compute.

Must not import jax.
"""

import numpy as np

from gpt_jax.scaling.catalog import LawEntry
from gpt_jax.scaling.fit import LawFit, fit_frontier
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.optima import (
    OptimaFit,
    Profile,
    parabola_minimum,
    power_law,
    squared_error,
)
from gpt_jax.scaling.table import RunTable, with_values

SAME_BUDGET = 1.15
"""A larger step between sorted computes begins a new budget."""
WIDEST_BUDGET = 1.3
"""Computes of one budget that spread by more than this factor are no IsoFLOP profile."""
FEWEST_SIZES = 4
"""Of a budget: three for the parabola, one to judge it."""


def fit_isoflop(
    entry: LawEntry, runs: RunTable, cost: float, n_versions: int, seed: int
) -> OptimaFit:
    """The power law through the minima of the parabolas, with n_versions simulated ones.

    cost: FLOPs per parameter and token. A version draws every parabola from its posterior under
    normal errors of one unknown size, relative to the loss and common to all budgets. Raises
    ValueError if fewer than two budgets have a minimum.
    """
    runs = with_values(runs, ["loss", *entry.needs])
    groups = budgets(runs["flops"])
    profiles, warnings = [], []
    for rows in groups:
        compute = float(np.exp(np.log(runs["flops"][rows]).mean()))
        log_x, loss = _points(entry, runs, rows)
        if np.unique(log_x).size < FEWEST_SIZES:
            warnings.append(
                f"budget {compute:.3g} FLOPs left out: {np.unique(log_x).size} values of "
                f"{entry.varied}, at least {FEWEST_SIZES} are needed"
            )
            continue
        profiles.append(_profile(compute, log_x, loss))
    used = [p for p in profiles if p.state != "none"]
    for p in profiles:
        if p.state == "none":
            warnings.append(f"budget {p.compute:.3g} FLOPs left out: its parabola has no minimum")
        elif p.state != "inside":
            where = "at the edge of" if p.state == "edge" else "outside"
            warnings.append(
                f"budget {p.compute:.3g} FLOPs: the best {entry.varied} "
                f"{np.exp(p.log_minimum):.3g} lies {where} the grid"
            )
    if len(used) < 2:
        raise ValueError(
            f"{entry.name} found a minimum at {len(used)} of {len(groups)} computes; at least two "
            f"computes with {FEWEST_SIZES} values of {entry.varied} each are needed"
        )
    log_compute = np.log([p.compute for p in used])
    log_optimum, losses = _simulate(used, n_versions, seed)
    coefficients = power_law(log_compute, log_optimum)
    with np.errstate(invalid="ignore"):
        log_loss = np.log(np.where(losses > 0, losses, np.nan))
    return OptimaFit(
        entry=entry,
        runs=runs,
        log_compute=log_compute,
        log_optimum=log_optimum,
        log_loss=log_loss,
        coefficients=coefficients,
        objective=squared_error(log_compute, log_optimum, coefficients),
        cost=cost,
        warnings=tuple(warnings),
        profiles=tuple(used),
    )


def budgets(flops: Array) -> list[Array]:
    """Rows of equal compute, in rising order; raises ValueError if computes form no budgets."""
    order = np.argsort(flops, kind="stable")
    ordered = np.log(flops[order])
    groups = np.split(order, np.flatnonzero(np.diff(ordered) > np.log(SAME_BUDGET)) + 1)
    for rows in groups:
        low, high = flops[rows].min(), flops[rows].max()
        if high / low > WIDEST_BUDGET:
            raise ValueError(
                f"computes from {low:.3g} to {high:.3g} FLOPs follow each other too closely to be "
                f"one budget or several; IsoFLOP needs runs at a few computes, several sizes each "
                f"(chinchilla-parametric needs no budgets)"
            )
    return groups


def parabola_bias(fit: OptimaFit, law_fit: LawFit) -> tuple[Array, Array]:
    """(M), (2): what the parabola adds to log N_opt of each budget, and to the power law.

    Measured on losses without noise, from a fitted law of N and D on the same grid of sizes.
    """
    frontier = fit_frontier(law_fit, law_fit.theta[None][:0], fit.cost)
    assert frontier is not None
    assert frontier.loss_anywhere is not None
    found, true = [], []
    for p in fit.profiles:
        losses = []
        for log_n in p.log_x:
            log_d = np.log(p.compute / fit.cost) - log_n
            losses.append(np.exp(frontier.loss_anywhere(np.array([log_n]), np.array([log_d]))[0]))
        found.append(_profile(p.compute, p.log_x, np.array(losses)).log_minimum)
        true.append(float(frontier.size(np.log([p.compute]))[0]))
    bias = np.array(found) - np.array(true)
    return bias, power_law(fit.log_compute, bias[None])[0]


def _points(entry: LawEntry, runs: RunTable, rows: Array) -> tuple[Array, Array]:
    """Log of the varied quantity, and loss; of a learning rate tried at several N, the best run."""
    log_x, loss = np.log(runs[entry.varied][rows]), runs["loss"][rows]
    if entry.varied == "n_params":
        return log_x, loss
    values = np.unique(log_x)
    return values, np.array([loss[log_x == v].min() for v in values])


def _profile(compute: float, log_x: Array, loss: Array) -> Profile:
    center = float(log_x.mean())
    z = log_x - center
    coefficients = np.linalg.lstsq(np.stack([z**0, z, z**2], 1), loss, rcond=None)[0]
    place = parabola_minimum(coefficients[None])[0][0]
    values = np.unique(z)
    if not np.isfinite(place):
        state = "none"
    elif not values[0] <= place <= values[-1]:
        state = "outside"
    else:
        state = "inside" if values[1] <= place <= values[-2] else "edge"
    return Profile(compute, log_x, loss, coefficients, center, state)


def _simulate(profiles: list[Profile], n_versions: int, seed: int) -> tuple[Array, Array]:
    """Log of the optimum and loss there, (1 + n_versions, M); row 0 as fitted."""
    rng = np.random.default_rng(seed)
    squares = sum(float(((p.residuals / p.minimum_loss) ** 2).sum()) for p in profiles)
    freedom = sum(p.loss.size - 3 for p in profiles)
    sigma = np.sqrt(squares / rng.chisquare(max(freedom, 1), n_versions))
    places, values = [], []
    for p in profiles:
        z = p.log_x - p.center
        design = np.stack([z**0, z, z**2], 1)
        root = np.linalg.cholesky(np.linalg.inv(design.T @ design))
        noise = rng.standard_normal((n_versions, 3)) @ root.T * (sigma * p.minimum_loss)[:, None]
        drawn = np.concatenate([p.coefficients[None], p.coefficients + noise])
        place, value = parabola_minimum(drawn)
        places.append(place + p.center)
        values.append(value)
    return np.stack(places, 1), np.stack(values, 1)
