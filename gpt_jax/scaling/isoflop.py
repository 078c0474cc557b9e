"""Chinchilla's approach 2: at each compute a parabola through the lowest losses, then a power law.

The same serves the best learning rate or batch size against compute. A parabola is fitted only to
sizes within a factor of its minimum, and a compute whose minimum is not inside its grid of sizes
is left out. A cubic over a wider window is the check. Dims: F versions, M computes, R runs of one
compute.

Must not import jax.
"""

import numpy as np

from gpt_jax.hints import counted
from gpt_jax.scaling.catalog import LawEntry
from gpt_jax.scaling.fit import LawFit, fit_frontier
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.optima import Check, OptimaFit, Profile, power_law, squared_error
from gpt_jax.scaling.profiles import MARGIN, LocalFit, fit_near_minimum, fit_window, states
from gpt_jax.scaling.table import RunTable, with_values

SAME_BUDGET = 1.15
"""A larger step between sorted computes begins a new budget."""
WIDEST_BUDGET = 1.3
"""Computes of one budget that spread by more than this factor are no IsoFLOP profile."""
FEWEST_SIZES = 4
"""Least number of sizes in a budget: three to fit the parabola, one to judge it."""
WINDOW = 3.0
"""Sizes within this factor of the best one take part in a parabola."""
CHECK_WIDENING = 1.5
"""The check's window is the parabolas' to this power: 5.2 for 3."""
FEWEST_TO_CHOOSE = 3
"""Budgets that are left when those near an edge of the grid are left out."""
CHOICES = 10
"""Rounds of choosing budgets and fitting the line; a few are enough."""
NEAR_EDGE = (
    "by the power law its best lies so near the edge of the grid that noise decides whether a "
    "minimum is seen"
)
FEWEST_FOR_CHECK = 6
"""Different sizes in the check's window: four for the cubic, two to judge it."""


def fit_isoflop(
    entry: LawEntry,
    runs: RunTable,
    cost: float,
    n_versions: int,
    seed: int,
    window: float = WINDOW,
) -> OptimaFit:
    """The power law through the minima of local parabolas, with n_versions simulated ones.

    cost: FLOPs per parameter and token. window: factor around its minimum from which a parabola
    takes sizes. A version simulates the losses of every budget (its parabola and normal errors of
    one unknown size, relative to the loss) and goes through all steps again, from the choice of
    the window to leaving out what has no minimum inside. Raises ValueError if fewer than two
    budgets have such a minimum.
    """
    if window <= 1:
        raise ValueError(f"--window {window:g}; allowed: factors above 1")
    runs = with_values(runs, ["loss", *entry.needs])
    groups = budgets(runs["flops"])
    used, notes = _with_a_minimum(entry, runs, groups, window)
    used, near_edge = _well_inside(used)
    notes += [_left_out(p.compute, NEAR_EDGE) for p in near_edge]
    if len(used) < 2:
        raise ValueError(
            f"{entry.name} found a minimum inside the grid at {len(used)} of {len(groups)} "
            f"computes; at least two computes with {FEWEST_SIZES} values of {entry.varied} each, "
            f"on both sides of the best, are needed" + "".join(f"; {note}" for note in notes)
        )
    log_compute = np.log([p.compute for p in used])
    log_optimum, losses = _simulate(used, window, n_versions, seed)
    kept = _kept(log_compute, log_optimum, _inner_range(used))
    kept[0] = True
    log_optimum, losses = (np.where(kept, v, np.nan) for v in (log_optimum, losses))
    coefficients = power_law(log_compute, log_optimum)
    with np.errstate(invalid="ignore"):
        log_loss = np.log(np.where(losses > 0, losses, np.nan))
    return OptimaFit(
        entry=entry,
        runs=runs.take(np.arange(len(runs)), *notes),
        log_compute=log_compute,
        log_optimum=log_optimum,
        log_loss=log_loss,
        coefficients=coefficients,
        objective=squared_error(log_compute, log_optimum, coefficients),
        cost=cost,
        profiles=tuple(used),
        window=window,
        check=_check(used, window),
    )


def _with_a_minimum(
    entry: LawEntry, runs: RunTable, groups: list[Array], window: float
) -> tuple[list[Profile], list[str]]:
    """Profiles of the budgets that have a minimum inside their sizes, and a line for each other."""
    used, notes = [], []
    for rows in groups:
        compute = float(np.exp(np.log(runs["flops"][rows]).mean()))
        log_x, loss = _points(entry, runs, rows)
        n_sizes = np.unique(log_x).size
        if n_sizes < FEWEST_SIZES:
            values = counted(n_sizes, "value")
            reason = f"{values} of {entry.varied}, at least {FEWEST_SIZES} are needed"
            notes.append(_left_out(compute, reason))
            continue
        profile = _profile(compute, log_x, loss, window)
        reason = _why_left_out(profile, entry.varied)
        if reason:
            notes.append(_left_out(compute, reason))
        else:
            used.append(profile)
    return used, notes


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


def runs_in_windows(fit: OptimaFit) -> RunTable:
    """The runs that the parabolas were fitted to."""
    chosen = np.zeros(len(fit.runs), bool)
    for profile in fit.profiles:
        same = np.abs(np.log(fit.runs["flops"] / profile.compute)) < np.log(WIDEST_BUDGET)
        sizes = np.log(fit.runs[fit.entry.varied])
        within = profile.log_x[profile.used]
        chosen |= same & (sizes >= within.min() - 1e-9) & (sizes <= within.max() + 1e-9)
    return fit.runs.take(chosen)


def parabola_bias(fit: OptimaFit, law_fit: LawFit) -> tuple[Array, Array]:
    """(M), (2): what the parabola adds to log N_opt of each budget, and to the power law.

    Measured on losses without noise, from a fitted law of N and D on the same windows of sizes.
    """
    frontier = fit_frontier(law_fit, law_fit.theta[None][:0], fit.cost)
    assert frontier is not None
    assert frontier.loss_anywhere is not None
    found, true = [], []
    for p in fit.profiles:
        log_x, losses = p.log_x[p.used], []
        for log_n in log_x:
            log_d = np.log(p.compute / fit.cost) - log_n
            losses.append(np.exp(frontier.loss_anywhere(np.array([log_n]), np.array([log_d]))[0]))
        center, everything = np.array([p.center]), np.inf
        local = fit_window(log_x, np.array([losses]), center, everything, 2)
        found.append(local.log_minimum[0])
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


def _profile(compute: float, log_x: Array, loss: Array, window: float) -> Profile:
    fit = fit_near_minimum(log_x, loss[None], window)
    state = str(states(log_x, fit)[0])
    return Profile(
        compute, log_x, loss, fit.used[0], fit.coefficients[0], float(fit.center[0]), state
    )


def _why_left_out(profile: Profile, varied: str) -> str:
    """Empty for a budget that takes part."""
    if profile.state == "inside":
        return ""
    if profile.state == "none":
        return "its parabola has no minimum"
    best = f"the best {varied} {np.exp(profile.log_minimum):.3g}"
    if profile.state == "outside":
        return f"{best} lies outside the grid"
    return f"{best} lies at the edge of the grid, within its last step"


def _left_out(compute: float, reason: str) -> str:
    return f"budget {compute:.3g} FLOPs left out: {reason}"


def _well_inside(profiles: list[Profile]) -> tuple[list[Profile], list[Profile]]:
    """Profiles to fit the power law to, and those too near an edge of the grid.

    Where the optimum lies near an edge, noise decides whether a minimum is seen, and the seen ones
    lie further inside than the truth: a smaller exponent. So budgets are chosen by the power law.
    """
    if len(profiles) < FEWEST_TO_CHOOSE:
        return profiles, []
    log_compute = np.log([p.compute for p in profiles])
    places = np.array([[p.log_minimum for p in profiles]])
    kept = _kept(log_compute, places, _inner_range(profiles))[0]
    if kept.sum() < FEWEST_TO_CHOOSE:
        return profiles, []
    return (
        [p for p, keep in zip(profiles, kept, strict=True) if keep],
        [p for p, keep in zip(profiles, kept, strict=True) if not keep],
    )


def _inner_range(profiles: list[Profile]) -> Array:
    """(2, M): between which values of log x a minimum has MARGIN values to each side."""
    values = [np.unique(p.log_x) for p in profiles]
    return np.array([[v[MARGIN - 1] for v in values], [v[-MARGIN] for v in values]])


def _kept(log_compute: Array, places: Array, inner: Array) -> Array:
    """(F, M) bool: where the power law through places (F, M) lies inside by their scatter.

    A version that would keep fewer than FEWEST_TO_CHOOSE keeps all.
    """
    known = np.isfinite(places)
    kept = known
    for _ in range(CHOICES):
        line = power_law(log_compute, np.where(kept, places, np.nan))
        predicted = line[:, :1] + line[:, 1:] * log_compute
        squares = np.where(kept, (places - predicted) ** 2, 0.0).sum(1)
        scatter = np.sqrt(squares / np.maximum(kept.sum(1) - 2, 1))[:, None]
        chosen = known & (predicted >= inner[0] + scatter) & (predicted <= inner[1] - scatter)
        enough = chosen.sum(1, keepdims=True) >= FEWEST_TO_CHOOSE
        chosen = np.where(enough, chosen, kept)
        if (chosen == kept).all():
            break
        kept = chosen
    return kept


def _simulate(
    profiles: list[Profile], window: float, n_versions: int, seed: int
) -> tuple[Array, Array]:
    """Log of the optimum and loss there, (1 + n_versions, M); row 0 as fitted.

    nan where a version has no minimum inside the grid.
    """
    rng = np.random.default_rng(seed)
    squares = sum(float(((p.residuals / p.minimum_loss) ** 2).sum()) for p in profiles)
    freedom = sum(int(p.used.sum()) - 3 for p in profiles)
    sigma = np.sqrt(squares / rng.chisquare(max(freedom, 1), (n_versions, 1)))
    places, values = [], []
    for p in profiles:
        smooth = np.where(p.used, p.parabola(p.log_x), p.loss)
        noise = sigma * p.minimum_loss * rng.standard_normal((n_versions, p.loss.size))
        fit = fit_near_minimum(p.log_x, np.concatenate([p.loss[None], smooth + noise]), window)
        inside = states(p.log_x, fit) == "inside"
        places.append(np.where(inside, fit.log_minimum, np.nan))
        values.append(np.where(inside, fit.minimum_loss, np.nan))
    return np.stack(places, 1), np.stack(values, 1)


def _check(profiles: list[Profile], window: float) -> Check | None:
    """The power law through minima of cubics; none without two budgets of enough sizes."""
    factor = window**CHECK_WIDENING
    found = []
    for p in profiles:
        fit: LocalFit = fit_window(p.log_x, p.loss[None], np.array([p.log_minimum]), factor, 3)
        place, sizes = fit.log_minimum[0], np.unique(p.log_x[fit.used[0]])
        if sizes.size >= FEWEST_FOR_CHECK and sizes[0] <= place <= sizes[-1]:
            found.append((np.log(p.compute), place))
    if len(found) < 2:
        return None
    log_compute, places = np.array(found).T
    return Check(factor, len(found), float(power_law(log_compute, places[None])[0, 1]))
