"""Figures and fits on a sweep's page, from the document of fits.json. Must not import jax."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from gpt_jax.scaling.names import SUMMARIES
from gpt_jax.sweep.page_numbers import Markup, interval, number, table
from gpt_jax.tracking import Record

LEVELS = ("80", "95")

CAPTIONS = {
    "loss-curves": "Smoothed training losses of all runs.",
    "final-loss-against-compute": "Final losses, and the runs that no cheaper one beats.",
    "final-loss-against-": "Final losses against {}, a line for each setting of the rest; stars "
    "mark the lowest of each.",
    "approaches": "The compute-optimal size by each approach, with 95% bands.",
    "profiles": "Losses at each budget, the parabolas through them, and their minima (stars).",
    "contours": "The fitted loss over size and tokens, the runs, and the compute-optimal line.",
    "fit": "The runs, and the law with its 95% band.",
    "optima": "The optimum at each compute, and the power law with its 95% band.",
    "loss-against-compute": "The runs, and the loss of the compute-optimal one with its 95% band.",
    "residuals": "How far each run lies from the law.",
    "extrapolation": "The dearest runs, as measured and as predicted from the cheaper ones.",
}
"""{figure's name, its beginning with `-`, or its end: what it shows}, the most telling first.
`{}` is the rest of the name."""
SHOWN_AT_ONCE = 2
"""Figures of a fit; the others are behind a click."""


def figure_grid(paths: Sequence[Path]) -> Markup:
    """SVG files inlined, each with its caption."""
    if not paths:
        return '<p class="soft">No run has anything to draw yet.</p>'
    return f'<div class="figures">\n{"".join(map(_figure, paths))}</div>'


def draw_fits(document: Record, figures: Mapping[str, Sequence[Path]]) -> Markup:
    """Every fit with its parameters, intervals, warnings and figures; why others are not there."""
    parts = [_exponents(document["size_exponents"]), _warnings(document["warnings"])]
    if figures["approaches"]:
        parts.append(figure_grid(figures["approaches"]))
    for fit in document["fits"]:
        parts += [_fit(fit), _fit_figures(figures[fit["law"]])]
    if document["not_fitted"]:
        reasons = "\n".join(
            f"<li><strong>{escape(law)}</strong>: {escape(reason)}</li>"
            for law, reason in document["not_fitted"].items()
        )
        parts.append(f'<h3>Not fitted</h3>\n<ul class="notes">\n{reasons}\n</ul>')
    return "\n".join(parts)


def _fit_figures(paths: Sequence[Path]) -> Markup:
    """The most telling ones, and the others behind a click."""
    kinds = list(CAPTIONS)
    ordered = sorted(paths, key=lambda path: kinds.index(_kind(path.stem)))
    first, rest = ordered[:SHOWN_AT_ONCE], ordered[SHOWN_AT_ONCE:]
    if not rest:
        return figure_grid(first)
    more = f"{len(rest)} more figure{'s' if len(rest) > 1 else ''}"
    hidden = f"<details>\n<summary>{more}</summary>\n{figure_grid(rest)}\n</details>"
    return f"{figure_grid(first)}\n{hidden}"


def _exponents(exponents: Mapping[str, Record]) -> Markup:
    """The approaches side by side, where there are several."""
    if len(exponents) < 2:
        return ""
    rows = [
        [escape(law), number(found["value"]), *(interval(found[level]) for level in LEVELS)]
        for law, found in exponents.items()
    ]
    caption = "The compute-optimal size grows as C to the power a, by each approach"
    return table(caption, ["approach", "a", "80%", "95%"], rows)


def _fit(fit: Record) -> Markup:
    source = f" ({escape(fit['source'])})" if fit["source"] else ""
    head = (
        f"<h3>{escape(fit['law'])}</h3>\n<p>{escape(SUMMARIES[fit['law']])}{source}</p>\n"
        f"<p><code>{escape(fit['formula'])}</code></p>\n"
    )
    said = _warnings(fit["warnings"]) + _notes(fit)
    return f'{head}<div class="fit">\n{_parameters(fit)}<div>{said}</div>\n</div>\n'


def _parameters(fit: Record) -> Markup:
    main, other = fit["intervals"], fit.get("bootstrap_intervals", {})
    header = ["parameter", "value", *(f"{level}%" for level in LEVELS)]
    header += ["95%, bootstrap"] if other else []
    rows = []
    for symbol, value in fit["parameters"].items():
        row = [f"<code>{escape(symbol)}</code>", number(value, missing="overflows")]
        row += [interval(main[symbol][level]) if symbol in main else "" for level in LEVELS]
        if other:
            row.append(interval(other[symbol]["95"]) if symbol in other else "")
        rows.append(row)
    points = f"{fit['n_points']} {'row' if fit['n_points'] == 1 else 'rows'}"
    return table(f"{points}; intervals by {fit['interval_method']}", header, rows)


def _notes(fit: Record) -> Markup:
    """What was left out, how well it predicts, what biases it, and the columns it was read from."""
    notes = [escape(note) for note in fit["notes"]]
    notes += [
        _held_out(what, found)
        for what, found in (
            ("the loss", fit["extrapolation"]),
            ("the optimum", fit.get("extrapolation_of_optimum")),
        )
        if found
    ]
    if "unbiased_alternative" in fit:
        bias = fit["unbiased_alternative"]
        notes.append(
            f"{escape(bias['note'])}; under {escape(bias['law'])} fitted to the same runs it adds "
            f"{number(bias['bias_of_a'])} to a, which without parabolas is "
            f"{number(bias['parameters']['a'])}, 95% {interval(bias['intervals']['a']['95'])}"
        )
    if "loss_against_compute" in fit:
        values = ", ".join(
            f"{escape(k)} = {number(v)}" for k, v in fit["loss_against_compute"].items()
        )
        notes.append(f"loss at the optimum, a C<sup>b</sup> + c: {values}")
    named = [f"{k} = {v}" for k, v in fit["conventions"].items() if k != v]
    notes += [f"conventions: {escape(', '.join(named))}"] if named else []
    notes.append(f"objective {number(fit['objective'])}: {escape(fit['objective_meaning'])}")
    items = "\n".join(f"<li>{note}</li>" for note in notes)
    return f'<ul class="notes">\n{items}\n</ul>\n'


def _held_out(what: str, found: Record) -> Markup:
    dearest = found["dearest"]
    edges = dearest.get("predicted_95")
    sure = f", 95% {interval(edges)}" if edges else ""
    return (
        f"held out: the {found['n_held_out']} dearest, up to {number(found['times_beyond'], 3)} "
        f"times beyond the fit: {what} off by {100 * found['mean_relative_error']:.2f}% on "
        f"average; the dearest predicted {number(dearest['predicted'], 5)}{sure}, measured "
        f"{number(dearest['measured'], 5)}"
    )


def _warnings(warnings: Sequence[str]) -> Markup:
    if not warnings:
        return ""
    items = "\n".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings">\n{items}\n</ul>\n'


def _figure(path: Path) -> Markup:
    content = base64.b64encode(path.read_bytes()).decode()
    name, caption = path.stem.replace("-", " "), _caption(path.stem)
    return (
        f'<figure>\n<img src="data:image/svg+xml;base64,{content}" width="700" height="500" '
        f'alt="Chart: {escape(name)}">\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n'
    )


def _kind(name: str) -> str:
    """The key of CAPTIONS: the name, its beginning, or the longest end that is known."""
    if name in CAPTIONS:
        return name
    beginnings = [key for key in CAPTIONS if key.endswith("-") and name.startswith(key)]
    ends = [key for key in CAPTIONS if name.endswith(f"-{key}")]
    return max(beginnings or ends, key=len)


def _caption(name: str) -> str:
    kind = _kind(name)
    return CAPTIONS[kind].format(name.removeprefix(kind).replace("-", " "))
