"""A study as JSON and as text.

Must not import jax.
"""

from typing import Any, get_args

import numpy as np

from gpt_jax.scaling import checks
from gpt_jax.scaling.answers import Answer, Estimate
from gpt_jax.scaling.checks import MIXING_SPOILS
from gpt_jax.scaling.constraints import fixed_symbols, groups_of
from gpt_jax.scaling.fit import Extrapolation, all_parameters
from gpt_jax.scaling.ladder import GPT2, SizeConvention, nearest_rung, with_settings
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.study import ParabolaBias, Study
from gpt_jax.scaling.uncertainty import LEVELS

PARABOLA_NOTE = (
    "a parabola in log N is not the shape of an IsoFLOP curve unless alpha = beta: its minimum "
    "moves with the width and the centre of the grid"
)
ENVELOPE_NOTE = (
    "the envelope takes the luckiest of curves that lie close, and knows only the sizes tried"
)
PROFILE = "profile likelihood (scatter taken to be equal over runs)"
ASK = "chinchilla-parametric does"
SIZE_DIGITS = 4


def to_json(study: Study) -> dict[str, Any]:
    """Plain values: law, parameters by symbol, objective, n_points, conventions, intervals, ..."""
    document: dict[str, Any] = {
        "law": study.entry.name,
        "source": study.entry.source,
        "formula": formula(study),
        "parameters": {name: _finite(value) for name, value in parameters(study).items()},
        "objective": objective(study)[0],
        "objective_meaning": objective(study)[1],
        "n_points": len(study.runs),
        "conventions": conventions(study),
        "labels": {k: sorted(set(v)) for k, v in study.runs.labels.items() if k in MIXING_SPOILS},
        "flops_per_param_token": study.cost,
        "intervals": {},
        "interval_method": interval_method(study),
    }
    main, profile = _interval_tables(study)
    document["intervals"] = {name: _edges(edges) for name, edges in main.items()}
    if profile:
        document["profile_intervals"] = {name: _edges(edges) for name, edges in profile.items()}
    if study.fit is not None:
        document["fixed"] = fixed_symbols(study.fit.law)
        document["tied"] = [list(names) for names in study.options.how.constraints.tied]
        document["groups"] = list(groups_of(study.fit.law))
    if study.scatter is not None:
        document["unequal_scatter"] = vars(study.scatter)
    if study.optima is not None:
        document["loss_against_compute"] = study.optima.loss_parameters
        document["optima"] = _optima(study)
    if study.optima is not None and study.optima.window is not None:
        check = study.optima.check
        document["window"] = study.optima.window
        document["check_by_cubics"] = None if check is None else vars(check)
    of_envelope = _envelope_bias(study)
    if of_envelope is not None:
        document["known_bias"] = of_envelope
    if study.bias is not None:
        document["unbiased_alternative"] = _bias(study.bias)
    document["extrapolation"] = _extrapolation(study.extrapolation, study.held_out_by_user)
    if study.optimum_extrapolation is not None:
        document["extrapolation_of_optimum"] = _extrapolation(study.optimum_extrapolation)
    document["answers"] = [_answer(study, answer) for answer in study.answers]
    document["notes"] = list(study.runs.notes)
    document["warnings"] = list(study.warnings)
    return document


def several_to_json(studies: list[Study], not_fitted: dict[str, str]) -> dict[str, Any]:
    """One study as it is; several as a list with the warnings of their comparison.

    not_fitted: {law: reason}
    """
    if len(studies) == 1 and not not_fitted:
        return to_json(studies[0])
    return {
        "fits": [to_json(s) for s in studies],
        "not_fitted": not_fitted,
        "warnings": comparison_warnings(studies),
    }


def comparison_warnings(studies: list[Study]) -> list[str]:
    """Approaches that disagree on N_opt ~ C^a beyond their intervals."""
    known = {s.entry.name: s.size_exponent() for s in studies}
    return checks.disagreement_warnings({k: v for k, v in known.items() if v is not None})


def formula(study: Study) -> str:
    if study.fit is not None:
        return study.fit.law.formula
    if study.entry.varied != "n_params":
        return f"{study.entry.varied} = k C^m"
    return "N_opt = k_N C^a, D_opt = k_D C^b"


def parameters(study: Study) -> dict[str, float]:
    if study.fit is not None:
        return all_parameters(study.fit)
    assert study.optima is not None
    return study.optima.parameters


def objective(study: Study) -> tuple[float, str]:
    """Its value at the optimum, and what it is."""
    if study.optima is not None:
        return study.optima.objective, "half the sum of squares of log optimum against log compute"
    assert study.fit is not None
    problem = study.fit.problem
    what = _residual(study)
    if np.isinf(problem.delta):
        meaning = f"half the sum of squares of {what}, over runs"
    else:
        meaning = f"sum of Huber(delta = {problem.delta:g}) of {what}, over runs"
    if problem.weights is not None:
        column = study.runs.conventions.get(study.options.how.weights or "", "")
        meaning += f", weighted by {column} (mean 1)"
    if problem.asymmetry != 1:
        meaning += f", those above the law {problem.asymmetry:g} times less"
    return study.fit.objective, meaning


def conventions(study: Study) -> dict[str, str]:
    """Which column of the file, or which formula, each quantity came from."""
    names = ("n_params", "n_tokens", "flops", study.entry.target, *study.entry.needs)
    return {n: study.runs.conventions[n] for n in names if n in study.runs.conventions}


def interval_method(study: Study) -> str:
    if study.uncertainty is not None:
        if study.uncertainty.bootstrap:
            return f"bootstrap over runs, {len(study.uncertainty.refits)} refits"
        return PROFILE
    if study.options.n_refits == 0:
        return "none"
    assert study.optima is not None
    if study.optima.profiles:
        return f"{study.options.n_refits} simulations of the budgets"
    return f"{study.options.n_refits} simulations of the curves"


def text(study: Study) -> str:
    """The study for a terminal."""
    value, meaning = objective(study)
    source = f" ({study.entry.source})" if study.entry.source else ""
    lines = [f"{study.entry.name}: {study.entry.summary}{source}", f"  {formula(study)}"]
    lines.append(f"  {len(study.runs)} runs; objective {value:.6g}, {meaning}")
    named = ", ".join(f"{k} = {v}" for k, v in conventions(study).items() if k != v)
    if named:
        lines.append(f"  conventions: {named}")
    lines += [f"  {note}" for note in study.runs.notes]
    lines += [f"  tied: {' = '.join(names)}" for names in study.options.how.constraints.tied]
    lines += _parameter_text(study) + _scatter_text(study) + _check_text(study)
    lines += _bias_text(study) + _extrapolation_text(study)
    for answer in study.answers:
        lines += _answer_text(study, answer)
    lines += [f"  warning: {warning}" for warning in study.warnings]
    return "\n".join(lines)


def _interval_tables(study: Study) -> tuple[dict[str, Array], dict[str, Array]]:
    """The intervals that are meant, and the profile's where they are another method's."""
    if study.uncertainty is not None:
        main, profile = study.uncertainty.intervals, study.uncertainty.profile
        return main, profile if study.uncertainty.bootstrap else {}
    assert study.optima is not None
    return study.optima.intervals, {}


def _edges(edges: Array) -> dict[str, list[float | None]]:
    """{"80": [low, high], "95": [...]}; null is an edge that the runs leave open."""
    return {
        str(level): [_finite(v) for v in pair] for level, pair in zip(LEVELS, edges, strict=True)
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity: a scale that overflows, or an open edge, is null."""
    return float(value) if np.isfinite(value) else None


def _parameter_text(study: Study) -> list[str]:
    """A line for each parameter, with its intervals in columns."""
    tables = _interval_tables(study)
    methods = (interval_method(study), PROFILE)
    shown = [(t, m) for t, m in zip(tables, methods, strict=True) if t]
    rows = [["", "", *(f"{level}%" for _ in shown for level in LEVELS)]]
    held = fixed_symbols(study.fit.law) if study.fit is not None else {}
    for name, number in parameters(study).items():
        cells = [_interval(pair) for table, _ in shown for pair in table.get(name, ())]
        if not cells and shown:
            cells = ["fixed" if name in held else "", *[""] * (len(rows[0]) - 3)]
        rows.append([name, f"{number:.6g}", *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    said = "; then ".join(method for _, method in shown)
    lines = [f"  intervals by {said}" if said else "  no intervals (--bootstrap 0)"]
    for row in rows if shown else rows[1:]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"    {'  '.join(cells)}".rstrip())
    return lines


def _residual(study: Study) -> str:
    linear = study.fit is not None and study.fit.problem.space == "linear"
    return study.entry.target if linear else f"log {study.entry.target}"


def _scatter_text(study: Study) -> list[str]:
    if study.scatter is None:
        return []
    sizes = ", ".join(f"{size:.3g}" for size in study.scatter.thirds)
    return [
        f"  unequal scatter: residuals of {_residual(study)} have sd {sizes} from the "
        f"smallest third of {study.scatter.variable} to the largest (by chance: "
        f"{study.scatter.chance:.1g})"
    ]


def _check_text(study: Study) -> list[str]:
    """The windows of an IsoFLOP study, and the exponent without parabolas."""
    optima = study.optima
    if optima is None or optima.window is None:
        return []
    sizes = [int(p.used.sum()) for p in optima.profiles]
    few, many = min(sizes), max(sizes)
    line = (
        f"  parabolas over {study.entry.varied} within {optima.window:g} times of the best: "
        f"{few if few == many else f'{few} to {many}'} runs at each of {len(sizes)} budgets"
    )
    check, power = optima.check, "a" if study.entry.varied == "n_params" else "m"
    if check is None:
        return [f"{line}; too few for cubics as a check"]
    return [
        f"{line}; cubics within {check.window:.3g} times, as a check ({check.n_computes} budgets): "
        f"{power} = {check.exponent:.4f}"
    ]


def _interval_text(edges: Array) -> str:
    return "  ".join(f"{k}% {_interval(pair)}" for k, pair in zip(LEVELS, edges, strict=True))


def _interval(pair: Array) -> str:
    low, high = ("open" if np.isnan(v) else f"{v:.{SIZE_DIGITS}g}" for v in pair)
    return f"[{low}, {high}]"


def _optima(study: Study) -> list[dict[str, Any]]:
    assert study.optima is not None
    fit = study.optima
    if not fit.profiles:
        return []
    return [
        {
            "flops": p.compute,
            fit.entry.varied: float(np.exp(p.log_minimum)),
            "loss": p.minimum_loss,
            "n_runs": int(p.loss.size),
            "n_runs_in_window": int(p.used.sum()),
            "minimum": p.state,
        }
        for p in fit.profiles
    ]


def _bias(bias: ParabolaBias) -> dict[str, Any]:
    return {
        "note": PARABOLA_NOTE,
        "law": bias.law_fit.entry.name,
        "parameters": {k: _finite(v) for k, v in all_parameters(bias.law_fit).items()},
        "intervals": {k: _edges(v) for k, v in bias.uncertainty.intervals.items()},
        "bias_of_a": bias.exponent,
        "bias_factor_of_n_params": [float(f) for f in bias.size_factors],
    }


def _envelope_bias(study: Study) -> dict[str, Any] | None:
    """Bias of the exponent, and of the loss as a factor, in simulated curves; None without them."""
    optima = study.optima
    if study.entry.kind != "envelope" or optima is None or len(optima.log_loss) == 1:
        return None
    loss = np.nanmean(optima.log_loss[0] - np.nanmedian(optima.log_loss[1:], axis=0))
    a = optima.coefficients[0, 1] - np.median(optima.coefficients[1:, 1])
    return {
        "note": ENVELOPE_NOTE,
        "bias_of_a": float(a),
        "bias_factor_of_loss": float(np.exp(loss)),
    }


def _bias_text(study: Study) -> list[str]:
    bias, of_envelope = study.bias, _envelope_bias(study)
    if of_envelope is not None:
        a, loss = of_envelope["bias_of_a"], of_envelope["bias_factor_of_loss"] - 1
        return [
            f"  known bias: {ENVELOPE_NOTE}",
            f"    in simulated curves: a {a:+.4f}, loss {loss:+.2%}; intervals correct for it",
        ]
    if bias is None:
        return []
    factors = ", ".join(f"{f:.3f}" for f in bias.size_factors)
    lines = [f"  known bias: {PARABOLA_NOTE}"]
    lines.append(
        f"    under {bias.law_fit.entry.name} on these sizes: best N times {factors}; "
        f"a {bias.exponent:+.4f}"
    )
    a = all_parameters(bias.law_fit)["a"]
    interval = _interval_text(bias.uncertainty.intervals["a"])
    return [*lines, f"    without parabolas ({bias.law_fit.entry.name}): a = {a:.4f} {interval}"]


def _extrapolation(found: Extrapolation | None, each: bool = False) -> dict[str, Any] | None:
    """each: with every run that was held out."""
    if found is None:
        return None
    kind = "relative_error" if found.relative else "error"
    document = {
        "n_fitted": found.n_fitted,
        "n_held_out": found.n_held_out,
        "times_beyond": found.ratio,
        f"mean_{kind}": found.mean_error,
        "dearest": _predicted(found, found.dearest),
    }
    if each:
        document[f"mean_signed_{kind}"] = float(found.errors.mean())
        document["runs"] = [_predicted(found, row) for row in range(found.n_held_out)]
    return document


def _predicted(found: Extrapolation, row: int) -> dict[str, Any]:
    return {
        "measured": float(found.measured[row]),
        "predicted": float(found.predicted[row]),
        "predicted_95": [float(v) for v in found.intervals[row]],
    }


def _extrapolation_text(study: Study) -> list[str]:
    lines = []
    for what, found in (
        (study.entry.target, study.extrapolation),
        (f"best {study.entry.varied}", study.optimum_extrapolation),
    ):
        if found is not None:
            lines.append(_held_out_line(what, found, study.held_out_by_user))
    return lines


def _held_out_line(what: str, found: Extrapolation, by_user: bool) -> str:
    measured, predicted = found.measured[found.dearest], found.predicted[found.dearest]
    edges = ", ".join(f"{v:.5g}" for v in found.intervals[found.dearest])
    interval = f" (95% [{edges}])" if edges else ""
    size = "{:.2%}".format if found.relative else "{:.3g}".format
    rows = "row" if found.n_held_out == 1 else "rows"
    which = "dearest" if not by_user else f"{rows} outside of --where"
    line = (
        f"  held out: the {found.n_held_out} {which}, up to {found.ratio:.3g} times beyond "
        f"the fit: {what} off by {size(found.mean_error)} on average"
    )
    if by_user:
        errors = found.errors
        worst = errors[np.abs(errors).argmax()]
        signed, far = ("+" * int(v > 0) + size(v) for v in (errors.mean(), worst))
        line += f" (signed {signed}, worst {far})"
    return f"{line}; dearest predicted {predicted:.5g}{interval}, measured {measured:.5g}"


def _estimate(estimate: Estimate) -> dict[str, Any]:
    edges = {str(level): [_finite(v) for v in pair] for level, pair in estimate.intervals.items()}
    return {"value": estimate.value, **edges}


def _answer(study: Study, answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = {
        "question": answer.question,
        "given": answer.given,
        **({"group": answer.group} if answer.group else {}),
        **{name: _estimate(value) for name, value in answer.values.items()},
    }
    shape = _shape(study, answer)
    if shape is not None:
        document["nearest_shape"] = shape
    if answer.over_training:
        document["over_training"] = [vars(o) for o in answer.over_training]
    return document


def _shape(study: Study, answer: Answer) -> dict[str, int] | None:
    """The model nearest to the answer's N, counted as the runs', with the runs' vocabulary and
    settings."""
    if "n_params" not in answer.values:
        return None
    counted = study.runs.conventions.get("n_params", "")
    conventions: tuple[SizeConvention, ...] = get_args(SizeConvention)
    convention = next((c for c in conventions if c == counted), conventions[0])
    vocabularies = {v for v in study.runs.labels.get("vocab_size", ()) if v.isdigit()}
    n_params = answer.values["n_params"].value
    vocab_size = int(vocabularies.pop()) if len(vocabularies) == 1 else GPT2.vocab_size
    base = with_settings(_model_settings(study) or "{}", vocab_size)
    return vars(nearest_rung(n_params, convention, base))


def _model_settings(study: Study) -> str | None:
    """The settings that all runs share, as `settings_of` writes them; None if they differ or are
    not known."""
    found = set(study.runs.labels.get("model_settings", ()))
    return found.pop() if len(found) == 1 and "" not in found else None


def _answer_text(study: Study, answer: Answer) -> list[str]:
    group = f", {answer.group}" if answer.group else ""
    lines = [f"  {answer.question.replace('_', '-')} {answer.given:g}{group}:"]
    for name, value in answer.values.items():
        if name == answer.question.removeprefix("target_"):
            continue
        intervals = "  ".join(
            f"{level}% [{low:.4g}, {high:.4g}]" for level, (low, high) in value.intervals.items()
        )
        lines.append(f"    {name:17s} {value.value:<10.5g} {intervals}".rstrip())
    shape = _shape(study, answer)
    if shape is not None:
        lines.append(
            f"    nearest shape     {shape['n_layers']} layers, width {shape['d_model']}, "
            f"{shape['n_heads']} heads, vocabulary {shape['vocab_size']}: "
            f"{shape['n_params']:,} parameters"
            f"{'' if _model_settings(study) else ' (learned positions of 1,024 tokens, as GPT-2)'}"
        )
    if study.optima is not None:
        lines.append(f"    over-training: {study.entry.name} knows no loss off its optima; {ASK}")
    for o in answer.over_training:
        lines.append(
            f"    {o.factor} times the tokens per parameter: N {o.n_params:.3g}, "
            f"D {o.n_tokens:.3g}, loss {o.loss:.4f}; the "
            f"optimum's loss costs {o.extra_compute:.3f} times the compute "
            f"(N {o.n_params_same_loss:.3g})"
        )
    return lines
