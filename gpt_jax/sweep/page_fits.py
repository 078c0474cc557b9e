"""Figures and fits on a sweep's page, from the document of fits.json. Must not import jax."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from gpt_jax.hints import counted
from gpt_jax.runs.tracking import Record
from gpt_jax.scaling.entries import LAWS
from gpt_jax.sweep.page_numbers import interval, number

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
    "compare-": "Losses and curves of both recipes, and how many times the {} one needs.",
    "chain-": "Step 1, the loss of each size over tokens, and step 2, the score over the loss: {}.",
    "extrapolation": "The dearest runs, as measured and as predicted from the cheaper ones.",
}
"""{figure's name, its beginning with `-`, or its end: what it shows}, the most telling first.
`{}` is the rest of the name."""
SHOWN_AT_ONCE = 2
"""Figures of a fit; the others are behind a click."""


class Figure(NamedTuple):
    """An SVG file, inlined."""

    name: str
    caption: str
    content: str
    """In base64."""


def draw_figures(paths: Sequence[Path]) -> list[Figure]:
    """SVG files, each with its caption."""
    return [
        Figure(
            path.stem.replace("-", " "),
            _caption(path.stem),
            base64.b64encode(path.read_bytes()).decode(),
        )
        for path in paths
    ]


def draw_fits(document: Record, figures: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Every fit with its parameters, intervals, warnings and figures; why others are not there."""
    exponents = document["size_exponents"]
    rows = [
        [law, number(found["value"]), *(interval(found[level]) for level in LEVELS)]
        for law, found in exponents.items()
    ]
    return {
        "exponents": rows if len(rows) > 1 else [],  # side by side, where there are several
        "warnings": document["warnings"],
        "approaches": draw_figures(figures["approaches"]),
        "fits": [
            _fit(fit) | {"figures": _fit_figures(figures[fit["law"]])} for fit in document["fits"]
        ],
        "not_fitted": document["not_fitted"],
    }


def _fit_figures(paths: Sequence[Path]) -> dict[str, list[Figure]]:
    """The most telling ones, and the others for behind a click."""
    kinds = list(CAPTIONS)
    drawn = draw_figures(sorted(paths, key=lambda path: kinds.index(_kind(path.stem))))
    return {"first": drawn[:SHOWN_AT_ONCE], "rest": drawn[SHOWN_AT_ONCE:]}


def _fit(fit: Record) -> dict[str, Any]:
    header, rows = _parameters(fit)
    points = counted(fit["n_points"], "row")
    return {
        **{name: fit[name] for name in ("law", "source", "formula", "warnings")},
        "summary": LAWS[fit["law"]].summary,
        "caption": f"{points}; intervals by {fit['interval_method']}",
        "header": header,
        "rows": rows,
        "notes": _notes(fit),
    }


def _scatter_and_check(fit: Record) -> list[str]:
    """Unequal scatter of a law's residuals; what stands beside the parabolas of an IsoFLOP fit."""
    notes: list[str] = []
    if "unequal_scatter" in fit:
        found = fit["unequal_scatter"]
        sizes = ", ".join(number(size, 3) for size in found["thirds"])
        notes.append(
            f"unequal scatter: residuals have sd {sizes} from the smallest third of "
            f"{found['variable']} to the largest"
        )
    if fit.get("check_by_cubics"):
        check = fit["check_by_cubics"]
        notes.append(
            f"parabolas over sizes within {number(fit['window'])} times of the best; cubics within "
            f"{number(check['window'], 3)} times, as a check: exponent {number(check['exponent'])}"
        )
    return notes


def _parameters(fit: Record) -> tuple[list[str], list[list[str]]]:
    """The header and rows of a fit's table."""
    main, other = fit["intervals"], fit.get("profile_intervals", {})
    header = ["parameter", "value", *(f"{level}%" for level in LEVELS)]
    header += ["95%, profile"] if other else []
    rows: list[list[str]] = []
    for symbol, value in fit["parameters"].items():
        row: list[str] = [
            Markup("<code>{}</code>").format(symbol),
            number(value, missing="overflows"),
        ]
        row += [interval(main[symbol][level]) if symbol in main else "" for level in LEVELS]
        if other:
            row.append(interval(other[symbol]["95"]) if symbol in other else "")
        rows.append(row)
    return header, rows


def _notes(fit: Record) -> list[str]:
    """Notes on a fit: rows left out, prediction errors, biases, and the columns that were read."""
    notes: list[str] = [*fit["notes"]]
    notes += [
        _held_out(what, found)
        for what, found in (
            ("the loss", fit["extrapolation"]),
            ("the optimum", fit.get("extrapolation_of_optimum")),
        )
        if found
    ]
    notes += _scatter_and_check(fit)
    if "unbiased_alternative" in fit:
        bias = fit["unbiased_alternative"]
        notes.append(
            Markup(
                "{}; under {} fitted to the same runs it adds {} to a, which without parabolas is "
                "{}, 95% {}"
            ).format(
                bias["note"],
                bias["law"],
                number(bias["bias_of_a"]),
                number(bias["parameters"]["a"]),
                interval(bias["intervals"]["a"]["95"]),
            )
        )
    if "loss_against_compute" in fit:
        values = Markup(", ").join(
            Markup("{} = {}").format(k, number(v)) for k, v in fit["loss_against_compute"].items()
        )
        notes.append(Markup("loss at the optimum, a C<sup>b</sup> + c: {}").format(values))
    named = [f"{k} = {v}" for k, v in fit["conventions"].items() if k != v]
    notes += [f"conventions: {', '.join(named)}"] if named else []
    meaning = fit["objective_meaning"]
    return [*notes, Markup("objective {}: {}").format(number(fit["objective"]), meaning)]


def _held_out(what: str, found: Record) -> Markup:
    dearest = found["dearest"]
    edges = dearest.get("predicted_95")
    sure = Markup(", 95% {}").format(interval(edges)) if edges else ""
    return Markup(
        "held out: the {} dearest, up to {} times beyond the fit: {} off by {:.2f}% on average; "
        "the dearest predicted {}{}, measured {}"
    ).format(
        found["n_held_out"],
        number(found["times_beyond"], 3),
        what,
        100 * found["mean_relative_error"],
        number(dearest["predicted"], 5),
        sure,
        number(dearest["measured"], 5),
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
