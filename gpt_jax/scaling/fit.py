"""Fit a law to a table of runs: the least objective over many starts, and what it rests on.

Must not import jax.
"""

from dataclasses import dataclass, replace

import numpy as np

from gpt_jax.scaling.catalog import LawEntry, build_law
from gpt_jax.scaling.constraints import (
    FREE,
    GROUP,
    Constraints,
    constrain,
    fixed_symbols,
    groups_of,
    log_variables,
)
from gpt_jax.scaling.frontier import Frontier, law_exponents, law_frontier
from gpt_jax.scaling.laws import Array, Law, symbols_of
from gpt_jax.scaling.minimise import Space
from gpt_jax.scaling.table import RunTable, with_values
from gpt_jax.scaling.uncertainty import Problem, bootstrap, chunks, percentiles, profile

ROUNDS = ((None, 12), (48, 400), (8, 1000))
"""Rounds of minimisation: (number of best starts that continue, None = all; steps)."""
LEAPS = 30
STRIDES = 2.0 ** np.arange(14)
STRIDE_STEPS = 50
"""Poorly constrained parameters creep along a valley of the objective, often to a bound. At
most LEAPS times, extrapolate the movement of STRIDE_STEPS steps by each factor in STRIDES."""
FURTHER = 1e-10
"""Extrapolation ends when it lowers the objective by less than this share."""

HELD_OUT_SHARE = 0.1
"""Share of the runs, the most expensive ones, that is predicted from the others."""
NO_LOSS = 1e-6
"""Nats: an irreducible loss below this counts as 0."""
SMALL_UNIT = 1e-3
"""Least unit of a parameter of either sign: profiles divide it by its size, which may be 0."""
SAME_COMPUTE = 1.05
"""Runs within this factor of each other have the same budget."""


@dataclass(frozen=True)
class How:
    """How a law is fitted; none = as its source has it."""

    irreducible: bool | None = None
    """With or without an irreducible loss."""
    delta: float | None = None
    """Threshold of the Huber loss; infinity for least squares."""
    space: Space | None = None
    """Residuals of log losses, or of losses."""
    asymmetry: float = 1.0
    """Factor by which the weight of a run is divided whose loss lies above the law's."""
    weights: str | None = None
    """Column of the runs' weights."""
    constraints: Constraints = FREE

    def options(self) -> list[str]:
        """Options of the command line that differ from the defaults of the law's source."""
        said = self.constraints
        given = {
            "--irreducible": self.irreducible is not None,
            "--delta": self.delta is not None,
            "--space": self.space is not None,
            "--asymmetry": self.asymmetry != 1,
            "--weights": self.weights is not None,
            "--fix": bool(said.fixed),
            "--tie": bool(said.tied),
            "--bounds": bool(said.bounds),
            "--group": said.group is not None,
        }
        return [option for option, there in given.items() if there]


AS_ITS_SOURCE = How()


@dataclass(frozen=True)
class LawFit:
    """A law at the minimum of its objective."""

    entry: LawEntry
    runs: RunTable
    problem: Problem
    theta: Array
    """(P)"""
    objective: float
    how: How

    @property
    def law(self) -> Law:
        return self.problem.law

    @property
    def parameters(self) -> dict[str, float]:
        """{paper's symbol: value}, fixed ones too; an irreducible loss below NO_LOSS is 0."""
        values = symbols_of(self.law, self.theta[None])[0]
        found = dict(zip(self.law.symbols, map(float, values), strict=True))
        for name in found:
            if name.partition("[")[0] == self.entry.irreducible and 0 < found[name] < NO_LOSS:
                found[name] = 0.0
        return found | fixed_symbols(self.law)

    def predict(self, runs: RunTable) -> Array:
        """Predicted target (R), such as the loss, of another table's runs."""
        return self.law.values(self.theta[None], self.variables(runs))[0][0]

    def variables(self, runs: RunTable) -> dict[str, Array]:
        """Another table's runs as the law takes them; raises ValueError for an unknown group."""
        return _variables(self.law, runs, self.how)

    def refit(self, runs: RunTable) -> "LawFit":
        """The same law, fitted in the same way to other runs."""
        return fit_as(self.entry, runs, self.how)


def fit_law(
    entry: LawEntry,
    runs: RunTable,
    *,
    irreducible: bool | None = None,
    delta: float | None = None,
    space: Space | None = None,
    asymmetry: float = 1.0,
    weights: str | None = None,
    constraints: Constraints = FREE,
) -> LawFit:
    """The global minimum of sum over runs of weight * huber_delta(log predicted - log measured).

    Starts cover the exponents on a grid, with the coefficients solved for; all are walked down
    together and the best of them to convergence. The arguments are those of `How`.
    Raises ValueError if there are fewer runs than parameters, a column is missing, or a constraint
    is not of this law.
    """
    how = How(irreducible, delta, space, asymmetry, weights, constraints)
    return fit_as(entry, runs, how)


def fit_as(entry: LawEntry, runs: RunTable, how: How) -> LawFit:
    """The same as `fit_law`, its arguments in one value."""
    constraints = how.constraints
    extra = [how.weights] if how.weights is not None else []
    runs = with_values(runs, [entry.target, *entry.needs, *extra])
    for name in entry.needs:
        if (runs[name] < 0).any():
            raise ValueError(f"{entry.name}: {name} has values below 0; allowed: 0 and above")
    if (runs[entry.target] <= 0).any() and entry.space == "log":
        if how.space == "log":
            raise ValueError(f"--space log: {entry.target} is not above 0 in every run")
        runs = runs.take(
            np.arange(len(runs)), f"{entry.target} is not all above 0: residuals without logarithms"
        )
        how = replace(how, space="linear")
    group = constraints.group
    if group is not None and group not in runs.labels:
        raise ValueError(f"--group {group}: the table has no such column of text")
    labels = sorted(set(runs.labels[group])) if group is not None else []
    mentioned = entry.irreducible in constraints.symbols
    law = build_law(entry, runs, True if mentioned and how.irreducible is None else how.irreducible)
    law = constrain(law, constraints, labels)
    _enough_runs(entry, law, runs, group)
    x = _variables(law, runs, how)
    problem = Problem(
        law=law,
        x=x,
        loss=runs[entry.target],
        delta=entry.delta if how.delta is None else how.delta,
        space=entry.space if how.space is None else how.space,
        asymmetry=how.asymmetry,
        weights=None if how.weights is None else runs[how.weights] / runs[how.weights].mean(),
        strata=x.get(GROUP),
    )
    theta, objective = minimum(problem)
    return LawFit(entry, runs, problem, theta, objective, how)


def _enough_runs(entry: LawEntry, law: Law, runs: RunTable, group: str | None) -> None:
    """Raises ValueError if there are fewer runs than parameters, in all or of a group's own."""
    n_free = len(law.bounds)
    if len(runs) < n_free:
        raise ValueError(
            f"{entry.name} has {n_free} parameters ({', '.join(law.symbols)}) and the "
            f"table {len(runs)} usable runs; at least as many are needed"
        )
    for label in groups_of(law):
        own = [s for s in law.symbols if s.endswith(f"[{label}]")]
        count = runs.labels[group].count(label) if group is not None else 0
        if count < len(own):
            raise ValueError(
                f"group {label} has {count} runs for its own {', '.join(own)}; leave it out with "
                f"--where, or share more parameters"
            )


def _variables(law: Law, runs: RunTable, how: How) -> dict[str, Array]:
    x, labels = log_variables(law, runs.quantities), groups_of(law)
    if labels:
        given = runs.labels[how.constraints.group or ""]
        unknown = set(given) - set(labels)
        if unknown:
            raise ValueError(
                f"no run of the fit is of group {sorted(unknown)[0]}; known: {', '.join(labels)}"
            )
        x[GROUP] = np.array([labels.index(label) for label in given])
    return x


def minimum(problem: Problem) -> tuple[Array, float]:
    """theta (P) and objective of the lowest minimum found from the law's starts."""
    theta = problem.law.starts(problem.x, problem.loss)
    objective = np.full(len(theta), np.inf)
    # Far from the runs logarithms lead back, and differences of losses overflow.
    positive = bool((problem.loss > 0).all())
    first = replace(problem, space="log") if positive else problem
    for count, iterations in ROUNDS:
        parts = chunks(theta[:count], problem.loss.size)
        goal = first if count is None else problem
        found = [goal.minimise(part, iterations) for part in parts]
        theta = np.concatenate([part.theta for part in found])
        objective = np.concatenate([part.objective for part in found])
        order = np.argsort(objective)
        theta, objective = theta[order], objective[order]
    return _end_of_valley(problem, theta[0], float(objective[0]))


def _end_of_valley(problem: Problem, theta: Array, objective: float) -> tuple[Array, float]:
    """Where a flat valley from theta (P) ends; theta itself if it is a minimum."""
    for _ in range(LEAPS):
        onward = problem.minimise(theta[None], STRIDE_STEPS).theta[0]
        strides = np.concatenate([[0.0], STRIDES])[:, None] * (onward - theta)
        found = problem.minimise(onward + strides, STRIDE_STEPS)
        best, before = int(found.objective.argmin()), objective
        if found.objective[best] < objective:
            theta, objective = found.theta[best], float(found.objective[best])
        if objective > before * (1 - FURTHER):
            break
    return theta, objective


@dataclass(frozen=True)
class Uncertainty:
    """Intervals of a fit's parameters, and the refits they come from."""

    profile: dict[str, Array]
    """{symbol: (levels, 2)} by profile likelihood, which takes scatter to be equal over runs"""
    bootstrap: dict[str, Array]
    """{symbol: (levels, 2)} by bootstrap over runs; empty without refits, or with as few runs as
    parameters, which every resample meets exactly"""
    refits: Array
    """(refits, P)"""

    @property
    def intervals(self) -> dict[str, Array]:
        """The bootstrap's, which hold where scatter is not equal; without refits the profile's.

        An edge that the profile leaves open is open: resamples cannot show how far it goes.
        """
        if not self.bootstrap:
            return self.profile
        return {
            name: np.where(np.isnan(self.profile[name]), np.nan, edges)
            for name, edges in self.bootstrap.items()
        }


def estimate_uncertainty(fit: LawFit, n_refits: int, seed: int) -> Uncertainty:
    """Profile and bootstrap intervals of the parameters and of the optimum's exponents."""
    names = (*fit.law.symbols, *law_exponents(fit.law, fit.theta[None]))
    signs = np.append(fit.law.signs, np.ones(len(names) - fit.law.signs.size))
    unit = np.ones(signs.size)
    free = np.flatnonzero(signs == 0)
    unit[free] = np.maximum(np.abs(fit.law.log_symbols(fit.theta[None])[0, free]), SMALL_UNIT)

    def logs(theta: Array) -> Array:
        # A profile interval does not depend on the scale it is found in, and this one never ends;
        # what may have either sign is brought to the size of a logarithm.
        exponents = [np.log(v)[:, None] for v in law_exponents(fit.law, theta).values()]
        return np.concatenate([fit.law.log_symbols(theta), *exponents], 1) / unit

    def by_name(edges: Array) -> dict[str, Array]:
        edges, sign = edges * unit[:, None, None], signs[:, None, None]
        with np.errstate(over="ignore"):
            values = np.where(sign == 0, edges, sign * np.exp(np.where(sign == 0, 0.0, edges)))
        found = {
            n: e[:, ::-1] if s < 0 else e for n, s, e in zip(names, signs, values, strict=True)
        }
        for name, constant in found.items():
            if name.partition("[")[0] == (fit.entry.irreducible or ""):
                # Its logarithm has no lower end, but the loss that is left is at least none.
                low = constant[:, 0]
                constant[:, 0] = np.where(np.isnan(low) | (low < NO_LOSS), 0.0, low)
        return found

    n_runs = int(clusters(fit.runs).max()) + 1
    profiled = by_name(profile(fit.problem, fit.theta, logs))
    if not n_refits or n_runs <= fit.theta.size:
        return Uncertainty(profiled, {}, fit.theta[None][:0])
    refits = bootstrap(fit.problem, fit.theta, clusters(fit.runs), n_refits, seed)
    return Uncertainty(profiled, by_name(percentiles(logs(refits))), refits)


def all_parameters(fit: LawFit) -> dict[str, float]:
    """The parameters and, where the law has a compute-optimum, its exponents a and b (with groups
    a[group] and b[group], unless they are shared)."""
    exponents = law_exponents(fit.law, fit.theta[None])
    return fit.parameters | {name: float(value[0]) for name, value in exponents.items()}


def clusters(runs: RunTable) -> Array:
    """(R): which run a row belongs to; each row its own without a `run` column."""
    if "run" not in runs.labels:
        return np.arange(len(runs))
    return np.unique(np.array(runs.labels["run"]), return_inverse=True)[1]


def fit_frontier(
    fit: LawFit,
    refits: Array,
    cost: float,
    unique_tokens: float | None = None,
    group: int = 0,
) -> Frontier | None:
    """The compute-optimal frontier with its refits; none if the law weighs no N against D."""
    versions = np.concatenate([fit.theta[None], refits])
    return law_frontier(fit.law, versions, cost, unique_tokens, group)


@dataclass(frozen=True)
class Extrapolation:
    """Held-out runs, by default the most expensive ones, predicted from the others."""

    n_fitted: int
    n_held_out: int
    ratio: float
    """Ratio of the largest held-out compute to the largest fitted one (see `cost_of_runs`)."""
    x: Array
    """(H) compute, or the law's own variable, of the held-out runs"""
    measured: Array
    predicted: Array
    intervals: Array
    """(H, 2) 95% of the prediction, without the scatter of a single run; (H, 0) without refits"""

    @property
    def errors(self) -> Array:
        """(H): predicted / measured - 1; predicted - measured where not all are above 0."""
        if self.relative:
            return self.predicted / self.measured - 1
        return self.predicted - self.measured

    @property
    def relative(self) -> bool:
        return bool((self.measured > 0).all())

    @property
    def mean_error(self) -> float:
        """Mean of the errors' sizes."""
        return float(np.abs(self.errors).mean())

    @property
    def dearest(self) -> int:
        return int(self.x.argmax())


def extrapolate(fit: LawFit, n_refits: int = 0, seed: int = 0) -> Extrapolation | None:
    """Fit on the cheap runs, predict the dearest; none if too few would remain.

    n_refits: of a bootstrap over the cheap runs, behind the intervals.
    """
    x = cost_of_runs(fit, fit.runs)
    count = max(1, round(HELD_OUT_SHARE * x.size))
    cheap = x < np.sort(x)[-count] / SAME_COMPUTE
    group = fit.how.constraints.group
    kept = fit.runs.take(cheap)
    few_left = group is not None and set(kept.labels[group]) != set(fit.runs.labels[group])
    if cheap.sum() <= len(fit.law.bounds) or few_left:
        return None
    try:
        earlier = fit.refit(kept)
    except ValueError:  # a group is left with fewer runs than it has parameters
        return None
    return predict_held_out(earlier, fit.runs.take(~cheap), n_refits, seed)


def predict_held_out(
    fit: LawFit, held_out: RunTable, n_refits: int = 0, seed: int = 0
) -> Extrapolation:
    """Runs that the fit has not seen, predicted.

    n_refits: of a bootstrap over the fit's runs, behind the intervals.
    """
    held_out = with_values(held_out, [fit.entry.target, *fit.entry.needs])
    intervals = np.empty((len(held_out), 0))
    if n_refits:
        refits = bootstrap(fit.problem, fit.theta, clusters(fit.runs), n_refits, seed)
        intervals = percentiles(fit.law.values(refits, fit.variables(held_out))[0])[:, -1]
    x, dearest = cost_of_runs(fit, held_out), cost_of_runs(fit, fit.runs).max()
    return Extrapolation(
        n_fitted=len(fit.runs),
        n_held_out=len(held_out),
        ratio=float(x.max() / dearest),
        x=x,
        measured=held_out[fit.entry.target],
        predicted=fit.predict(held_out),
        intervals=intervals,
    )


def cost_of_runs(fit: LawFit, runs: RunTable) -> Array:
    """(R): compute where the law has several variables, else its variable; a low loss is dear."""
    variables = fit.law.variables
    if len(variables) > 1 and "flops" in runs and not np.isnan(runs["flops"]).any():
        return runs["flops"]
    return 1 / runs["loss"] if variables == ("loss",) else runs[variables[0]]
