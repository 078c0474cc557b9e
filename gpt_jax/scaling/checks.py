"""Warnings: what a reader of a fit should know before believing it.

Must not import jax.
"""

from collections.abc import Sequence

import numpy as np

from gpt_jax.hints import counted
from gpt_jax.scaling.answers import Answer
from gpt_jax.scaling.constraints import Constrained
from gpt_jax.scaling.fit import Extrapolation, LawFit, Uncertainty
from gpt_jax.scaling.laws import EXPONENT_RANGE, Array
from gpt_jax.scaling.optima import OptimaFit
from gpt_jax.scaling.table import RunTable, pareto

FEW_VALUES = 4
"""Distinct sizes, token counts or computes behind an exponent: fewer draw a warning."""
FEW_RUNS_PER_PARAMETER = 2
SHORT_RANGE = 8.0
"""Factor: a variable that spans less hardly constrains its exponent."""
MIXING_SPOILS = {
    "tokenizer": "losses per token of different tokenizers are not comparable",
    "vocab_size": "losses per token of different vocabularies are not comparable",
    "corpus": "losses on different corpora are not comparable",
    "convention": "N, D and C of different conventions are not comparable",
    "loss_unit": "losses in different units are not comparable",
}
MANY_WITHOUT_MINIMUM = 0.3
"""Share of simulated studies that leave a budget out."""
EXACT_OPTIMUM = 0.01
"""Differences of log N and of exponents below this draw no warning."""
CHECK_SHARE = 1.2
"""Share of the 95% half-width by which a check may differ. Noise alone exceeds it once in 50."""
SCATTER_WARNING = (
    "scatter is not equal over runs, and profile intervals are too narrow then; --bootstrap gives "
    "others"
)
FAR_SCATTER = 1e-3
"""Chance of minima that scatter so much around their power law: less draws a warning."""
COST_SPREAD = 1.2
"""Factor between the largest and the smallest C / (N D) of a table."""
USUAL_COST = (1.0, 60.0)
"""C / (N D), median: 6 in the papers, a few times that where small models count attention and
embeddings in C and not in N, less where N counts experts that a token does not use."""
USUAL_TOKENS_PER_PARAMETER = (1e-3, 1e6)
"""D / N, median: from the smallest to the most over-trained models there are."""
BIAS_SHARE = 0.5
"""Share of the 95% half-width: a smaller bias of the parabolas draws no warning."""


def table_warnings(runs: RunTable) -> list[str]:
    """Warn of the table itself: mixed tokenizers or conventions, wrong units, repeated rows."""
    found = list(runs.warnings)
    for label, reason in MIXING_SPOILS.items():
        values = sorted(set(runs.labels.get(label, ())))
        if len(values) > 1:
            found.append(f"the runs mix {label} {', '.join(values)}: {reason}")
    if all(name in runs for name in ("n_params", "n_tokens", "flops")):
        ratio = runs["flops"] / (runs["n_params"] * runs["n_tokens"])
        if np.nanmax(ratio) / np.nanmin(ratio) > COST_SPREAD:
            found.append(
                f"flops / (n_params n_tokens) runs from {np.nanmin(ratio):.3g} to "
                f"{np.nanmax(ratio):.3g}: mixed conventions, or attention counted in; best tokens "
                f"use the median (a column of 6 N D has one ratio: --columns flops=flops_6nd)"
            )
    return [*found, *unit_warnings(runs), *repeat_warnings(runs)]


def unit_warnings(runs: RunTable) -> list[str]:
    """Warn of N, D and C that cannot all be parameters, tokens and FLOPs: a mistaken column."""
    found = []
    for ratio, formula, usual, (low, high) in (
        (("flops", "n_params", "n_tokens"), "C / (N D)", "6", USUAL_COST),
        (("n_tokens", "n_params"), "D / N", "between 0.1 and 10,000", USUAL_TOKENS_PER_PARAMETER),
    ):
        if not all(name in runs for name in ratio):
            continue
        top, *bottom = (runs[name] for name in ratio)
        value = float(np.nanmedian(top / np.prod(bottom, axis=0)))
        if not low <= value <= high:
            columns = ", ".join(f"{n} = {runs.conventions.get(n, n)}" for n in ratio)
            found.append(
                f"{formula} is {value:.3g}, usually {usual}: a column ({columns}) is not what its "
                f"name says, or not in parameters, tokens and FLOPs; see --columns"
            )
            break  # one mistake, one warning
    return found


def repeat_warnings(runs: RunTable) -> list[str]:
    """Warn of rows that share all numbers with another row: perhaps copies."""
    names = list(runs.quantities)
    table = np.stack([np.nan_to_num(runs[name], nan=-1.0) for name in names], 1)
    count = len(table) - len(np.unique(table, axis=0))
    if not count:
        return []
    return [
        f"{counted(count, 'row has', 'rows have')} the same {', '.join(names)} as "
        f"another row: if they are copies of one run, the intervals are too narrow"
    ]


def fit_warnings(fit: LawFit) -> list[str]:
    """Warn of a law's fit: few values behind an exponent, few runs, a parameter at a bound."""
    found = []
    for variable in fit.law.variables:
        values = fit.runs[variable]
        values = values[values > 0]
        distinct = np.unique(np.round(np.log(values), 2)).size
        span = values.max() / values.min()
        if distinct < FEW_VALUES:
            found.append(
                f"only {distinct} values of {variable} stand behind its exponent "
                f"(at least {FEW_VALUES} are wanted)"
            )
        elif span < SHORT_RANGE:
            found.append(
                f"{variable} spans a factor of {span:.1f} only: its exponent is hardly determined"
            )
    if fit.law.variables == ("flops",):
        n_frontier = len(pareto(fit.runs))
        if n_frontier < len(fit.runs):
            found.append(
                f"{len(fit.runs) - n_frontier} runs are beaten by a run of no more compute: a law "
                f"of compute is about the best runs (--frontier-only)"
            )
    n_free = fit.theta.size
    if len(fit.runs) < FEW_RUNS_PER_PARAMETER * n_free:
        found.append(f"{len(fit.runs)} runs for {n_free} parameters")
    return found + bound_warnings(fit)


def bound_warnings(fit: LawFit) -> list[str]:
    """Warn of a minimum at a bound of a parameter, the user's or the law's own."""
    low, high = fit.law.bounds.T
    at_bound = (fit.theta <= low + 1e-9) | (fit.theta >= high - 1e-9)
    if not at_bound.any():
        return []
    limits = fit.how.constraints.bounds
    if isinstance(fit.law, Constrained):
        index = [fit.law.index[fit.law.slots[name]] for name in fit.law.symbols]
        names = [n for n, k in zip(fit.law.symbols, index, strict=True) if at_bound[k]]
        own = [n for n in names if n in limits or n.partition("[")[0] in limits]
        if own:
            return [f"the minimum lies at the bound given for {', '.join(own)}"]
    return [
        "the minimum lies at a bound of the parameters (an exponent at "
        f"{EXPONENT_RANGE[0]:g}, or a term that vanishes): the runs do not hold this law"
    ]


def interval_warnings(uncertainty: Uncertainty) -> list[str]:
    """Warn of open 95% intervals, and of exponents whose interval spans a factor of ten."""
    found, leave_open = [], []
    for symbol, edges in uncertainty.intervals.items():
        low, high = edges[-1]
        if np.isnan(low) or np.isnan(high):
            leave_open.append(symbol)
        elif abs(high) > 10 * abs(low) and symbol.startswith(("alpha", "beta")):
            found.append(f"{symbol} is known to a factor of {abs(high / low):.0f} only")
    if leave_open:
        found.append(f"the runs leave {', '.join(leave_open)} open to one side at 95%")
    return found


def extrapolation_warnings(extrapolation: Extrapolation | None) -> list[str]:
    if extrapolation is None:
        return ["too few cheap runs to hold out the dearest: extrapolation was not tried"]
    return []


def optima_warnings(fit: OptimaFit) -> list[str]:
    """Warn of a power law through optima: too few computes, a short range, and the checks below."""
    n_computes = len(fit.profiles) or np.unique(fit.log_optimum[0]).size
    what = "computes" if fit.profiles else "best sizes"
    found = []
    if n_computes < FEW_VALUES:
        found.append(
            f"only {n_computes} {what} stand behind the exponents (at least {FEW_VALUES} are "
            f"wanted)"
        )
    if np.ptp(fit.log_compute) < np.log(SHORT_RANGE):
        factor = np.exp(np.ptp(fit.log_compute))
        found.append(f"the computes span a factor of {factor:.1f} only")
    found += outside_warnings(fit) + undetermined_warnings(fit)
    return found + scatter_warnings(fit) + check_warnings(fit)


def outside_warnings(fit: OptimaFit) -> list[str]:
    """Warn of estimates outside their own 95% interval: too few points for a bootstrap."""
    outside = [
        name
        for name, edges in fit.intervals.items()
        if not (edges[-1][0] <= fit.parameters[name] <= edges[-1][1])
    ]
    if not outside:
        return []
    return [
        f"{', '.join(outside)} outside of its own 95% interval: refits differ in kind; "
        f"too few runs stand behind it"
    ]


def undetermined_warnings(fit: OptimaFit) -> list[str]:
    """Warn of budgets whose minimum is poorly constrained: many simulated ones have none inside."""
    shares = np.isnan(fit.log_optimum[1:]).mean(0) if len(fit.log_optimum) > 1 else []
    return [
        f"budget {p.compute:.3g} FLOPs: in {share:.0%} of the simulated studies its parabola has "
        f"no minimum inside the grid"
        for p, share in zip(fit.profiles, shares, strict=False)
        if share > MANY_WITHOUT_MINIMUM
    ]


def scatter_warnings(fit: OptimaFit) -> list[str]:
    """Warn of minima further from their power law than the noise of their budgets explains."""
    if not fit.profiles or len(fit.log_optimum) < 3 or fit.log_compute.size < 3:
        return []
    from scipy.special import chdtrc

    error = np.nanstd(fit.log_optimum[1:], axis=0)
    line = fit.coefficients[0, 0] + fit.coefficients[0, 1] * fit.log_compute
    distance = np.abs(fit.log_optimum[0] - line)
    squares = float(((distance / np.maximum(error, EXACT_OPTIMUM)) ** 2).sum())
    if chdtrc(fit.log_compute.size - 2, squares) > FAR_SCATTER:
        return []
    return [
        f"the minima scatter around the power law by {100 * distance.mean():.0f}% on average, more "
        f"than the noise within budgets explains ({100 * error.mean():.0f}%): no power law, or "
        f"settings that differ between budgets; the intervals are too narrow"
    ]


def check_warnings(fit: OptimaFit) -> list[str]:
    """Warn where cubics over wider windows give another exponent than the parabolas."""
    if fit.check is None or "a" not in fit.intervals:
        return []
    a, (low, high) = fit.parameters["a"], fit.intervals["a"][-1]
    half = max((high - low) / 2, EXACT_OPTIMUM)
    if abs(fit.check.exponent - a) <= CHECK_SHARE * half:
        return []
    return [
        f"cubics over sizes within {fit.check.window:.3g} times of each minimum give a = "
        f"{fit.check.exponent:.3f}, parabolas {a:.3f}: further apart than the 95% interval is wide "
        f"to one side"
    ]


def bias_warnings(fit: OptimaFit, exponent: float) -> list[str]:
    """Warn where the parabolas' bias is not small against their own uncertainty."""
    if "a" not in fit.intervals:
        return []
    low, high = fit.intervals["a"][-1]
    if abs(exponent) < BIAS_SHARE * (high - low) / 2:
        return []
    return [
        f"the parabolas bias a by {exponent:+.3f} under the fitted law, as much as "
        f"{abs(exponent) / ((high - low) / 2):.1f} of their 95% half-width: use the law's a"
    ]


def answer_warnings(answers: Sequence[Answer], runs: RunTable) -> list[str]:
    """Warn of answers outside the range of the runs: extrapolations."""
    found = []
    for answer in answers:
        for name, column in (("compute", "flops"), ("flops", "flops"), ("n_params", "n_params")):
            if name in answer.values and column in runs:
                value = answer.values[name].value
            elif name == answer.question and column in runs:
                value = answer.given
            else:
                continue
            low, high = np.nanmin(runs[column]), np.nanmax(runs[column])
            if not low <= value <= high:
                factor = value / high if value > high else low / value
                side = "above the largest" if value > high else "below the smallest"
                found.append(
                    f"{answer.question.replace('_', '-')} {answer.given:g} needs {column} = "
                    f"{value:.3g}, {factor:.3g} times {side} fitted: an extrapolation"
                )
                break
    return found


def disagreement_warnings(exponents: dict[str, tuple[float, Array]]) -> list[str]:
    """Warn of approaches whose 95% intervals of the exponent a do not overlap.

    exponents: {approach: (a, (levels, 2) interval)}
    """
    found = []
    names = list(exponents)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            (a, one), (b, other) = exponents[first], exponents[second]
            if one[-1, 0] > other[-1, 1] or other[-1, 0] > one[-1, 1]:
                found.append(
                    f"{first} and {second} disagree beyond their 95% intervals: "
                    f"a = {a:.3f} [{one[-1, 0]:.3f}, {one[-1, 1]:.3f}] against "
                    f"{b:.3f} [{other[-1, 0]:.3f}, {other[-1, 1]:.3f}]"
                )
    return found
