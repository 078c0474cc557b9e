"""Results of one law on one table: fit, intervals, extrapolation, answers, warnings.

Must not import jax.
"""

from dataclasses import dataclass, replace

import numpy as np

from gpt_jax.scaling import answers, checks
from gpt_jax.scaling.answers import Answer
from gpt_jax.scaling.catalog import LAWS, LawEntry
from gpt_jax.scaling.constraints import groups_of
from gpt_jax.scaling.envelope import fit_envelope
from gpt_jax.scaling.fit import (
    AS_ITS_SOURCE,
    Extrapolation,
    How,
    LawFit,
    Uncertainty,
    all_parameters,
    estimate_uncertainty,
    extrapolate,
    fit_as,
    fit_frontier,
    fit_law,
    predict_held_out,
)
from gpt_jax.scaling.frontier import Frontier
from gpt_jax.scaling.isoflop import WINDOW, fit_isoflop, parabola_bias, runs_in_windows
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.optima import OptimaFit, extrapolate_optima
from gpt_jax.scaling.scatter import UnequalScatter, unequal_scatter
from gpt_jax.scaling.table import RunTable, cost_per_parameter_and_token, with_steps_min

UNBIASED = "chinchilla-parametric"
"""Law of N and D whose minima are reported beside the parabolas'."""
N_UNBIASED_PARAMETERS = 5
MOST_EXTRAPOLATIONS = 300
"""Refits behind the interval of the held-out runs' prediction."""


@dataclass(frozen=True)
class Options:
    """How to fit, and what to answer."""

    how: How = AS_ITS_SOURCE
    n_refits: int = 1000
    seed: int = 0
    questions: tuple[tuple[str, float], ...] = ()
    """(compute | target_loss | n_params, value)"""
    unique_tokens: float | None = None
    window: float | None = None
    """IsoFLOP: factor around the best size from which a parabola takes sizes; none = WINDOW."""


@dataclass(frozen=True)
class ParabolaBias:
    """Bias of the parabolas of an IsoFLOP study, if a law fitted to the same runs is true."""

    law_fit: LawFit
    uncertainty: Uncertainty
    size_factors: Array
    """(M): parabola's best N over the law's own, losses without noise"""
    exponent: float
    """Exponent of N_opt against compute: the parabolas' minus the law's"""


@dataclass(frozen=True)
class Study:
    """One law on one table. Either `fit` or `optima` is there."""

    entry: LawEntry
    runs: RunTable
    options: Options
    cost: float
    fit: LawFit | None
    optima: OptimaFit | None
    uncertainty: Uncertainty | None
    extrapolation: Extrapolation | None
    """Extrapolation of the loss (or the law's other target) to held-out runs."""
    optimum_extrapolation: Extrapolation | None
    """Extrapolation of the best size; only for approaches that find optima."""
    frontier: Frontier | None
    """None for a law without a best size, and for groups, each of which has its own answers."""
    bias: ParabolaBias | None
    scatter: UnequalScatter | None
    """Scatter of a law's residuals; None where it is even."""
    answers: tuple[Answer, ...]
    warnings: tuple[str, ...]
    held_out_by_user: bool = False
    """Whether the extrapolation is to runs that a condition left out of the fit."""

    def size_exponent(self) -> tuple[float, Array] | None:
        """a of N_opt ~ C^a and its (levels, 2) intervals; none where the law has no optimum."""
        if self.optima is not None:
            intervals = self.optima.intervals
            return (self.optima.parameters["a"], intervals["a"]) if "a" in intervals else None
        if self.fit is None or self.uncertainty is None:
            return None
        found = self.uncertainty.intervals
        return (all_parameters(self.fit)["a"], found["a"]) if "a" in found else None


def make_study(
    entry: LawEntry, runs: RunTable, options: Options, held_out: RunTable | None = None
) -> Study:
    """Fit a law and say everything that is known of it; raises ValueError for user mistakes.

    held_out: runs to predict, in place of the dearest.
    """
    if entry.name == "kaplan-ns":
        runs = with_steps_min(runs)
        held_out = None if held_out is None else with_steps_min(held_out)
    cost = cost_per_parameter_and_token(runs)
    if entry.kind == "loss":
        return _study_law(entry, runs, options, cost, held_out)
    return _study_optima(entry, runs, options, cost)


def _study_law(
    entry: LawEntry, runs: RunTable, options: Options, cost: float, held_out: RunTable | None
) -> Study:
    fit = fit_as(entry, runs, options.how)
    uncertainty = estimate_uncertainty(fit, options.n_refits, options.seed)
    n_refits = min(options.n_refits, MOST_EXTRAPOLATIONS)
    if held_out is None or not len(held_out):
        extrapolation = extrapolate(fit, n_refits, options.seed)
    else:
        extrapolation = predict_held_out(fit, held_out, n_refits, options.seed)
    if options.window is not None:
        raise ValueError(f"--window: {entry.name} fits no parabolas; leave it out")
    if options.unique_tokens is not None and "unique_tokens" not in fit.law.variables:
        raise ValueError(
            f"--unique-tokens: {entry.name} knows no repetition; data-constrained does"
        )
    labels = groups_of(fit.law)
    frontiers = [
        fit_frontier(fit, uncertainty.refits, cost, options.unique_tokens, group)
        for group in range(max(1, len(labels)))
    ]
    given = [
        replace(
            answers.from_one_variable(fit, uncertainty.refits, question, value, group)
            if frontier is None
            else _ask(frontier, question, value),
            group=labels[group] if labels else "",
        )
        for question, value in options.questions
        for group, frontier in enumerate(frontiers)
    ]
    warnings = [*checks.table_warnings(fit.runs), *checks.fit_warnings(fit)]
    warnings += checks.interval_warnings(uncertainty)
    scatter = unequal_scatter(fit)
    if scatter is not None and not uncertainty.bootstrap:
        warnings.append(checks.SCATTER_WARNING)
    warnings += checks.extrapolation_warnings(extrapolation)
    warnings += checks.answer_warnings(given, fit.runs)
    return Study(
        entry=entry,
        runs=fit.runs,
        options=options,
        cost=cost,
        fit=fit,
        optima=None,
        uncertainty=uncertainty,
        extrapolation=extrapolation,
        optimum_extrapolation=None,
        frontier=None if labels else frontiers[0],
        bias=None,
        scatter=scatter,
        held_out_by_user=held_out is not None and len(held_out) > 0,
        answers=tuple(given),
        warnings=tuple(warnings),
    )


def _study_optima(entry: LawEntry, runs: RunTable, options: Options, cost: float) -> Study:
    if options.how != AS_ITS_SOURCE:
        raise ValueError(
            f"{entry.name} is a fit of optima, not of a formula to runs: it takes no "
            f"{', no '.join(options.how.options())}"
        )
    if options.unique_tokens is not None:
        raise ValueError(f"--unique-tokens: {entry.name} knows no repetition")
    optima = _fit_optima(entry, runs, options, cost)
    held_out = extrapolate_optima(optima)
    frontier = optima.frontier if entry.varied == "n_params" else None
    if frontier is None and options.questions:
        raise ValueError(f"{entry.name} answers no questions of model size; leave --compute out")
    given = [_ask(frontier, q, value) for q, value in options.questions if frontier is not None]
    bias = _bias(optima, options) if entry.kind == "isoflop" else None
    warnings = [*checks.table_warnings(optima.runs), *optima.warnings]
    warnings += checks.optima_warnings(optima)
    warnings += checks.extrapolation_warnings(held_out[1] if held_out else None)
    warnings += checks.answer_warnings(given, optima.runs)
    if bias is not None:
        warnings += checks.bias_warnings(optima, bias.exponent)
    return Study(
        entry=entry,
        runs=optima.runs,
        options=options,
        cost=cost,
        fit=None,
        optima=optima,
        uncertainty=None,
        extrapolation=held_out[1] if held_out else None,
        optimum_extrapolation=held_out[0] if held_out else None,
        frontier=frontier,
        bias=bias,
        scatter=None,
        answers=tuple(given),
        warnings=tuple(warnings),
    )


def _fit_optima(entry: LawEntry, runs: RunTable, options: Options, cost: float) -> OptimaFit:
    if entry.kind != "envelope":
        window = WINDOW if options.window is None else options.window
        return fit_isoflop(entry, runs, cost, options.n_refits, options.seed, window)
    if options.window is not None:
        raise ValueError(f"--window: {entry.name} fits no parabolas; leave it out")
    return fit_envelope(entry, runs, cost, options.n_refits, options.seed)


def _bias(optima: OptimaFit, options: Options) -> ParabolaBias | None:
    """None if the table has too few runs for the law of five parameters."""
    runs = runs_in_windows(optima)
    if len(runs) <= N_UNBIASED_PARAMETERS:
        return None
    law_fit = fit_law(LAWS[UNBIASED], runs)
    size, line = parabola_bias(optima, law_fit)
    n_refits = min(options.n_refits, MOST_EXTRAPOLATIONS)
    uncertainty = estimate_uncertainty(law_fit, n_refits, options.seed)
    return ParabolaBias(law_fit, uncertainty, np.exp(size), float(line[1]))


def _ask(frontier: Frontier, question: str, value: float) -> Answer:
    ask = {
        "compute": answers.for_compute,
        "target_loss": answers.for_loss,
        "n_params": answers.for_size,
    }
    return ask[question](frontier, value)
