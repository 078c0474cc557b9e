"""Fit a law to a table of runs: the least objective over many starts, and what it rests on.

Must not import jax.
"""

from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.catalog import LawEntry, build_law
from gpt_jax.scaling.frontier import Frontier, law_exponents, law_frontier
from gpt_jax.scaling.laws import Array, Law, symbols_of
from gpt_jax.scaling.table import RunTable, with_values
from gpt_jax.scaling.uncertainty import Problem, bootstrap, chunks, percentiles, profile

ROUNDS = ((None, 12), (48, 400), (8, 1000))
"""How many of the best starts go on, for how many steps."""
LEAPS = 30
STRIDES = 2.0 ** np.arange(14)
STRIDE_STEPS = 50
"""Of what the runs hardly hold, which creeps along a valley, often to a bound: leaps of so many
times the way of STRIDE_STEPS steps."""
FURTHER = 1e-10
"""A leap that lowers the objective by less than this share of it is the last."""

HELD_OUT_SHARE = 0.1
"""The dearest runs that are predicted from the others."""
NO_LOSS = 1e-6
"""Nats: an irreducible loss below this is none."""
SAME_COMPUTE = 1.05
"""Runs within this factor of each other have the same budget."""


@dataclass(frozen=True)
class LawFit:
    """A law at the minimum of its objective."""

    entry: LawEntry
    runs: RunTable
    problem: Problem
    theta: Array
    """(P)"""
    objective: float
    irreducible: bool | None
    """As asked for: none is the choice of the law's source."""

    @property
    def law(self) -> Law:
        return self.problem.law

    @property
    def parameters(self) -> dict[str, float]:
        """By the paper's symbols."""
        values = symbols_of(self.law, self.theta[None])[0]
        found = dict(zip(self.law.symbols, map(float, values), strict=True))
        constant = self.entry.irreducible
        if constant in found and found[constant] < NO_LOSS:
            found[constant] = 0.0
        return found

    def predict(self, runs: RunTable) -> Array:
        """Of another table's runs, the quantity that the law predicts."""
        x = {v: np.log(runs[v]) for v in self.law.variables}
        return np.exp(self.law.log_loss(self.theta[None], x)[0][0])


def fit_law(
    entry: LawEntry,
    runs: RunTable,
    *,
    irreducible: bool | None = None,
    delta: float | None = None,
) -> LawFit:
    """The global minimum of sum over runs of huber_delta(log predicted - log measured).

    Starts cover the exponents on a grid, with the coefficients solved for; all are walked down
    together and the best of them to convergence. irreducible: with or without an irreducible
    loss; delta: of the Huber loss, infinity for least squares; none = as the law's source has it.
    Raises ValueError if there are fewer runs than parameters, or a column is missing.
    """
    runs = with_values(runs, [entry.target, *entry.needs])
    law = build_law(entry, runs, irreducible)
    if len(runs) < len(law.symbols):
        raise ValueError(
            f"{entry.name} has {len(law.symbols)} parameters ({', '.join(law.symbols)}) and the "
            f"table {len(runs)} usable runs; at least as many are needed"
        )
    x = {v: np.log(runs[v]) for v in law.variables}
    problem = Problem(law, x, np.log(runs[entry.target]), entry.delta if delta is None else delta)
    theta, objective = minimum(problem)
    return LawFit(entry, runs, problem, theta, objective, irreducible)


def minimum(problem: Problem) -> tuple[Array, float]:
    """theta (P) and objective of the lowest minimum found from the law's starts."""
    theta = problem.law.starts(problem.x, np.exp(problem.log_loss))
    objective = np.full(len(theta), np.inf)
    for count, iterations in ROUNDS:
        parts = chunks(theta[:count], problem.log_loss.size)
        found = [problem.minimise(part, iterations) for part in parts]
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

    def logs(theta: Array) -> Array:
        # A profile interval does not depend on the scale it is found in, and this one never ends.
        exponents = [np.log(v)[:, None] for v in law_exponents(fit.law, theta).values()]
        return np.concatenate([fit.law.log_symbols(theta), *exponents], 1)

    signs = np.append(fit.law.signs, np.ones(len(names) - fit.law.signs.size))

    def by_name(edges: Array) -> dict[str, Array]:
        with np.errstate(over="ignore"):
            values = signs[:, None, None] * np.exp(edges)
        found = {
            n: e if s > 0 else e[:, ::-1] for n, s, e in zip(names, signs, values, strict=True)
        }
        constant = found.get(fit.entry.irreducible or "")
        if constant is not None:
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
    """The parameters and, where the law has a compute-optimum, its exponents a and b."""
    exponents = law_exponents(fit.law, fit.theta[None])
    return fit.parameters | {name: float(value[0]) for name, value in exponents.items()}


def clusters(runs: RunTable) -> Array:
    """(R): which run a row belongs to; each row its own without a `run` column."""
    if "run" not in runs.labels:
        return np.arange(len(runs))
    return np.unique(np.array(runs.labels["run"]), return_inverse=True)[1]


def fit_frontier(
    fit: LawFit, refits: Array, cost: float, unique_tokens: float | None = None
) -> Frontier | None:
    """The compute-optimal frontier with its refits; none if the law weighs no N against D."""
    return law_frontier(fit.law, np.concatenate([fit.theta[None], refits]), cost, unique_tokens)


@dataclass(frozen=True)
class Extrapolation:
    """The dearest runs predicted from the others."""

    n_fitted: int
    n_held_out: int
    ratio: float
    """Of the dearest run's compute (or size) to the dearest fitted one's."""
    x: Array
    """(H) compute, or the law's own variable, of the held-out runs"""
    measured: Array
    predicted: Array
    intervals: Array
    """(H, 2) 95% of the prediction, without the scatter of a single run; (H, 0) without refits"""

    @property
    def mean_error(self) -> float:
        """Mean of |predicted / measured - 1|."""
        return float(np.abs(self.predicted / self.measured - 1).mean())

    @property
    def dearest(self) -> int:
        return int(self.x.argmax())


def extrapolate(fit: LawFit, n_refits: int = 0, seed: int = 0) -> Extrapolation | None:
    """Fit on the cheap runs, predict the dearest; none if too few would remain.

    n_refits: of a bootstrap over the cheap runs, behind the intervals.
    """
    x = cost_of_runs(fit)
    count = max(1, round(HELD_OUT_SHARE * x.size))
    cheap = x < np.sort(x)[-count] / SAME_COMPUTE
    if cheap.sum() <= len(fit.law.symbols):
        return None
    earlier = fit_law(
        fit.entry, fit.runs.take(cheap), irreducible=fit.irreducible, delta=fit.problem.delta
    )
    held_out, intervals = fit.runs.take(~cheap), np.empty((int((~cheap).sum()), 0))
    if n_refits:
        refits = bootstrap(earlier.problem, earlier.theta, clusters(earlier.runs), n_refits, seed)
        logs = {v: np.log(held_out[v]) for v in fit.law.variables}
        intervals = np.exp(percentiles(earlier.law.log_loss(refits, logs)[0])[:, -1])
    return Extrapolation(
        n_fitted=int(cheap.sum()),
        n_held_out=len(held_out),
        ratio=float(x.max() / x[cheap].max()),
        x=x[~cheap],
        measured=held_out[fit.entry.target],
        predicted=earlier.predict(held_out),
        intervals=intervals,
    )


def cost_of_runs(fit: LawFit) -> Array:
    """(R): compute where the law has several variables, else its variable; a low loss is dear."""
    runs, variables = fit.runs, fit.law.variables
    if len(variables) > 1 and "flops" in runs and not np.isnan(runs["flops"]).any():
        return runs["flops"]
    return 1 / runs["loss"] if variables == ("loss",) else runs[variables[0]]
