"""Figures of studies, each as PNG and SVG: data, fit, and how sure it is.

Must not import jax.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullLocator

from gpt_jax.scaling.constraints import GROUP, groups_of, plain
from gpt_jax.scaling.frontier import Frontier
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.study import Study
from gpt_jax.scaling.uncertainty import percentiles
from gpt_jax.storage.atomic import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette: colour-blind readers can distinguish them."""
LINES = ("-", "--", "-.", ":")
"""Line styles of the approaches in one figure, which often overlap."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
POWER = re.compile(r"\{(?:([0-9.]+)\\times)?10\^\{([^}]+)\}\}")
"""A power of ten in matplotlib's mathtext, with its factor if it has one."""
POINTS = 60
"""Number of points of a drawn curve."""
BAND = "95% interval"
LABELS = {
    "n_params": "parameters N",
    "n_tokens": "training tokens D",
    "flops": "compute C (FLOPs)",
    "loss": "loss (nats per token)",
    "steps_min": "steps S_min",
    "critical_batch_tokens": "critical batch size (tokens)",
    "learning_rate": "learning rate",
    "batch_tokens": "batch size (tokens)",
}
STAR: Any = {
    "fmt": "*", "color": COLOURS[1], "markersize": 12, "capsize": 4, "zorder": 4
}  # fmt: skip
STYLE: Any = {
    "text.parse_math": False,  # a user's name with dollar signs is no formula
    "font.size": 11,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "gpt_jax",
}


def draw_all(studies: Sequence[Study], directory: Path) -> list[Path]:
    """Every figure that the studies have data for; returns the files written."""
    written = []
    with matplotlib.rc_context(STYLE):
        for study in studies:
            for name, draw in figures(study).items():
                written += save(_figure(draw), directory / f"{study.entry.name}-{name}")
        sized = [s for s in studies if s.frontier is not None]
        if len(sized) > 1:
            written += save(
                _figure(lambda axes: draw_approaches(axes, sized)), directory / "approaches"
            )
    return written


def figures(study: Study) -> dict[str, Callable[[Axes], None]]:
    """{name: function that draws it on an Axes} of one study."""
    found: dict[str, Callable[[Axes], None]] = {}
    if study.frontier is not None:
        frontier = study.frontier
        found["loss-against-compute"] = lambda axes: draw_loss_against_compute(
            axes, study, frontier
        )
        if frontier.loss_anywhere is not None:
            found["contours"] = lambda axes: draw_contours(axes, study, frontier)
    if study.fit is not None:
        found["residuals"] = lambda axes: draw_residuals(axes, study)
        if len(study.fit.law.variables) == 1:
            found["fit"] = lambda axes: draw_one_variable(axes, study)
    if study.optima is not None and study.optima.profiles:
        found["profiles"] = lambda axes: draw_profiles(axes, study)
    if study.optima is not None:
        found["optima"] = lambda axes: draw_optima(axes, study)
    if study.extrapolation is not None:
        found["extrapolation"] = lambda axes: draw_extrapolation(axes, study)
    return found


class PowerFormatter(LogFormatterSciNotation):
    """Ticks of a logarithmic axis as plain text, such as 10⁹ or 2×10⁹: STYLE parses no formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        found = POWER.search(super().__call__(x, pos))
        if found is None:
            return ""
        factor, power = found.groups()
        raised = power.replace("\N{MINUS SIGN}", "-").translate(SUPERSCRIPTS)
        return f"{factor}\N{MULTIPLICATION SIGN}10{raised}" if factor else f"10{raised}"


def save(figure: Figure, stem: Path) -> list[Path]:
    """stem.png and stem.svg, each written whole or not at all, without a date."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatterSciNotation):
                axis.set_major_formatter(PowerFormatter())
            if isinstance(axis.get_minor_formatter(), LogFormatterSciNotation):
                axis.set_minor_formatter(PowerFormatter(minor_thresholds=(1, 0.4)))
    written = []
    for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
        path = stem.with_name(f"{stem.name}.{suffix}")
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
        written.append(path)
        figure.set_layout_engine("none")  # laid out once for both
    return written


def draw_loss_against_compute(axes: Axes, study: Study, frontier: Frontier) -> None:
    """Runs coloured by size, and the loss of the compute-optimal run with its 95% band."""
    runs = study.runs
    points = axes.scatter(
        runs["flops"], runs["loss"], c=np.log10(runs["n_params"]), s=22, cmap="viridis", zorder=3
    )
    axes.figure.colorbar(points, ax=axes, label="log10 of parameters N")
    if study.optima is not None:
        lowest, style = study.optima, "*" if study.optima.profiles else "."
        axes.plot(
            np.exp(lowest.log_compute),
            np.exp(lowest.log_loss[0]),
            style,
            color="black",
            markersize=9 if lowest.profiles else 3,
            label="minima" if lowest.profiles else "envelope",
            zorder=5,
        )
    computes = _span(runs["flops"], study)
    losses = [np.exp(frontier.loss(_rows(frontier, c))) for c in computes]
    _curve(axes, computes, losses, "optimal")
    _finish(axes, "flops", "loss", f"{study.entry.name}: loss against compute")


def draw_contours(axes: Axes, study: Study, frontier: Frontier) -> None:
    """L(N, D) as contours, the runs, and the frontier."""
    anywhere, runs = frontier.loss_anywhere, study.runs
    assert anywhere is not None
    sizes, tokens = _span(runs["n_params"]), _span(runs["n_tokens"])
    losses = np.array(
        [
            [np.exp(anywhere(_rows(frontier, n), _rows(frontier, d))[0]) for n in sizes]
            for d in tokens
        ]
    )
    _finish(axes, "n_params", "n_tokens", f"{study.entry.name}: L(N, D)")
    lines = axes.contour(sizes, tokens, losses, levels=12, cmap="viridis", linewidths=1.2)
    axes.set_ylim(tokens[0], tokens[-1])
    axes.set_xlim(sizes[0], sizes[-1])
    axes.clabel(lines, fmt="%.2f", fontsize=8)
    axes.scatter(runs["n_params"], runs["n_tokens"], s=14, color="0.35", label="runs", zorder=3)
    computes = _span(runs["flops"])
    best = np.exp(np.stack([frontier.size(_rows(frontier, c)) for c in computes]))
    nd = computes / frontier.cost
    axes.plot(best[:, 0], nd / best[:, 0], color=COLOURS[1], label="compute-optimal")
    if frontier.n_versions > 1:
        # Along a compute the band's edges are two sizes: a polygon from edge to edge.
        low, high = percentiles(best[:, 1:].T)[:, -1].T
        n, d = np.append(low, high[::-1]), np.append(nd / low, (nd / high)[::-1])
        axes.fill(n, d, color=COLOURS[1], alpha=0.2, linewidth=0, label=BAND)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False)


def draw_residuals(axes: Axes, study: Study) -> None:
    """How far the runs lie from the law, in percent, against their compute or size."""
    assert study.fit is not None
    variables = study.fit.law.variables
    several = len(variables) > 1 and "flops" in study.runs
    variable = "flops" if several else variables[0]
    linear = study.fit.problem.space == "linear"
    residuals = (1 if linear else 100) * study.fit.problem.residuals(study.fit.theta)
    axes.axhline(0, color="0.4", linewidth=1)
    axes.scatter(study.runs[variable], residuals, s=22, color=COLOURS[0], zorder=3)
    _logarithmic(axes, "x", variable)
    what = LABELS.get(study.entry.target, study.entry.target).partition(" (")[0]
    axes.set_ylabel(
        f"measured {'less' if linear else 'over'} predicted {what}{'' if linear else ' (%)'}"
    )
    axes.set_title(f"{study.entry.name}: residuals")


def draw_one_variable(axes: Axes, study: Study) -> None:
    """Runs and a law in one variable, with its 95% band."""
    assert study.fit is not None
    assert study.uncertainty is not None
    fit, variable = study.fit, study.fit.law.variables[0]
    theta = np.concatenate([fit.theta[None], study.uncertainty.refits])
    x, labels = _span(study.runs[variable]), groups_of(fit.law)
    group = fit.problem.x.get(GROUP, np.zeros(len(study.runs)))
    for g, label in enumerate(labels or (fit.law.formula,)):
        law, its_theta = plain(fit.law, theta, g)
        curves = law.values(its_theta, {variable: np.log(x)})[0]
        rows, colour = group == g, COLOURS[g % len(COLOURS)] if labels else "0.35"
        axes.scatter(
            study.runs[variable][rows],
            study.runs[study.entry.target][rows],
            s=22,
            color=colour,
            zorder=3,
        )
        _curve(axes, x, list(curves.T), label, colour if labels else COLOURS[1])
    axes.set_title(study.entry.name)
    for side, quantity in (("x", variable), ("y", study.entry.target)):
        if (study.runs[quantity] > 0).all():
            _logarithmic(axes, side, quantity)
        else:
            (axes.xaxis if side == "x" else axes.yaxis).set_label_text(
                LABELS.get(quantity, quantity)
            )


def draw_profiles(axes: Axes, study: Study) -> None:
    """Losses over the varied quantity at each compute, the parabolas and their minima.

    Points beyond a parabola's window are hollow.
    """
    assert study.optima is not None
    profiles = study.optima.profiles
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(profiles)))
    for k, (profile, colour) in enumerate(zip(profiles, colours, strict=True)):
        used, size = profile.used, np.exp(profile.log_x)
        axes.scatter(size[used], profile.loss[used], s=22, color=colour, zorder=3)
        axes.plot(size[~used], profile.loss[~used], "o", mfc="none", mec=colour, markersize=4.7)
        low, high = profile.log_x[used].min(), profile.log_x[used].max()
        log_x = np.linspace(min(low, profile.log_minimum), max(high, profile.log_minimum), POINTS)
        label = f"{profile.compute:.2g} FLOPs"
        axes.plot(np.exp(log_x), profile.parabola(log_x), color=colour, label=label)
        minimum = np.exp(profile.log_minimum), profile.minimum_loss
        edges = _edges(study.optima.log_optimum[:, k])
        axes.errorbar(*minimum, xerr=_around(minimum[0], edges), **STAR)
    axes.plot([], [], "*", color=COLOURS[1], markersize=12, label=f"minimum, {BAND}")
    _finish(axes, study.entry.varied, "loss", f"{study.entry.name}: profiles and minima")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def draw_optima(axes: Axes, study: Study) -> None:
    """Optima against compute and the power law through them, with its 95% band."""
    assert study.optima is not None
    fit = study.optima
    x, y = np.exp(fit.log_compute), np.exp(fit.log_optimum[0])
    if fit.profiles:
        edges = np.stack([_edges(column) for column in fit.log_optimum.T], 1)
        axes.errorbar(x, y, yerr=_around(y, edges), fmt="o", color="0.35", capsize=3, zorder=3)
    else:
        axes.scatter(x, y, s=8, color="0.35", zorder=3)
    computes = _span(np.exp(fit.log_compute))
    logs = [fit.coefficients[:, 0] + fit.coefficients[:, 1] * np.log(c) for c in computes]
    values = [np.exp(log) for log in logs]
    _curve(axes, computes, values, f"exponent {fit.coefficients[0, 1]:.3f}")
    _finish(axes, "flops", study.entry.varied, f"{study.entry.name}: optima")


def draw_extrapolation(axes: Axes, study: Study) -> None:
    """The dearest runs, measured against predicted from the others: on the diagonal is right."""
    found = study.extrapolation
    assert found is not None
    ends = np.array([found.predicted, found.measured])
    margin = 0.01 * np.abs(ends).max()
    low, high = ends.min() - margin, ends.max() + margin
    axes.plot([low, high], [low, high], color="0.5", linewidth=1, label="predicted = measured")
    what = LABELS.get(study.entry.target, study.entry.target)
    points = "runs" if study.fit is not None else "minima"
    axes.scatter(found.predicted, found.measured, s=34, color=COLOURS[0], label=points, zorder=3)
    dearest = found.predicted[found.dearest], found.measured[found.dearest]
    label = f"the dearest, {found.ratio:.3g} times beyond the fit"
    if found.intervals.size:
        label += f", {BAND}"
    edges = found.intervals[found.dearest] if found.intervals.size else np.full(2, np.nan)
    axes.errorbar(*dearest, xerr=_around(dearest[0], edges), label=label, **STAR)
    others = "the fitted ones" if study.held_out_by_user else "cheaper ones"
    axes.set_xlabel(f"{what} predicted from {others}")
    axes.set_ylabel(f"{what} measured")
    error = f"{found.mean_error:.2%}" if found.relative else f"{found.mean_error:.3g}"
    axes.set_title(f"{study.entry.name}: held out, {error} off on average")
    axes.legend()


def draw_approaches(axes: Axes, studies: Sequence[Study]) -> None:
    """The best size against compute by every approach, with 95% bands."""
    for k, study in enumerate(studies):
        colour, line = COLOURS[k % len(COLOURS)], LINES[k % len(LINES)]
        frontier = study.frontier
        assert frontier is not None
        computes = _span(study.runs["flops"], study)
        sizes = [np.exp(frontier.size(_rows(frontier, c))) for c in computes]
        exponent = study.size_exponent()
        label = study.entry.name + (f": a = {exponent[0]:.3f}" if exponent else "")
        _curve(axes, computes, sizes, label, colour, line)
        optima = study.optima
        if optima is not None and optima.profiles:
            minima = np.exp(optima.log_compute), np.exp(optima.log_optimum[0])
            axes.scatter(*minima, s=22, color=colour, zorder=5)
    _finish(axes, "flops", "n_params", "compute-optimal size by approach, 95% intervals")


def _figure(draw: Callable[[Axes], None]) -> Figure:
    figure = Figure(figsize=(7, 5), layout="constrained")
    draw(figure.add_subplot())
    return figure


def _curve(
    axes: Axes,
    x: Array,
    versions: Sequence[Array],
    label: str,
    colour: str = COLOURS[1],
    line: str = "-",
) -> None:
    """The first version as a line, the others as a 95% band. versions: (F) at each x."""
    values = np.stack(versions, 1)
    axes.plot(x, values[0], line, color=colour, label=label, zorder=4)
    if len(values) > 1:
        low, high = percentiles(values[1:])[:, -1].T
        known = {text.get_label() for text in axes.collections}
        band = "_" if BAND in known or "a =" in label else BAND
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, label=band)
    axes.legend()


def _edges(logs: Array) -> Array:
    """(F) -> the 95% interval (2) of its versions; nan without any."""
    return np.exp(percentiles(logs[1:, None])[0, -1]) if logs.size > 1 else np.full(2, np.nan)


def _around(value: Any, edges: Array) -> Array:
    """Edges (2, ...) as the lengths of error bars; matplotlib draws none for nan."""
    low, high = edges
    return np.abs(np.stack([value - low, high - value])).reshape(2, -1)


def _finish(axes: Axes, x: str, y: str, title: str) -> None:
    _logarithmic(axes, "x", x)
    _logarithmic(axes, "y", y)
    axes.set_title(title)


def _logarithmic(axes: Axes, side: str, quantity: str) -> None:
    """A labelled logarithmic axis, "x" or "y"."""
    (axes.set_xscale if side == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if side == "x" else axes.yaxis
    if quantity == "loss":
        # Losses span less than a decade: plain numbers, also between the powers of ten.
        axis.set_major_locator(MaxNLocator(8))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    axis.set_label_text(LABELS.get(quantity, quantity))


def _span(values: Array, study: Study | None = None) -> Array:
    """Points over the range of the values, and of the computes asked for."""
    asked = [] if study is None else [a.given for a in study.answers if a.question == "compute"]
    low, high = min([values[values > 0].min(), *asked]), max([values.max(), *asked])
    return np.geomspace(low / 1.2, high * 1.2, POINTS)


def _rows(frontier: Frontier, value: float) -> Array:
    return np.full(frontier.n_versions, np.log(value))
