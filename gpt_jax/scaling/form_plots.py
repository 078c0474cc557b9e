"""Figures of chains, curves, grids and mixtures, each as PNG and SVG.

Must not import jax.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gpt_jax.scaling.bowls import Cell, PowerLaw
from gpt_jax.scaling.chain import Chain, last
from gpt_jax.scaling.curve import Curve, CurveFit
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.mixture import DomainFit
from gpt_jax.scaling.plots import BAND, COLOURS, STYLE, save
from gpt_jax.scaling.schedules import BestSchedule

POINTS = 80


def draw_chains(chains: Sequence[Chain], directory: Path) -> list[Path]:
    """A figure for each task: step 1 against tokens, step 2 against loss."""
    return _draw(
        {f"chain-{_slug(chain.name)}": _bind(_draw_chain, chain) for chain in chains}, directory
    )


def draw_curves(
    fit: CurveFit,
    curves: Sequence[Curve],
    train: Sequence[str],
    best: BestSchedule | None,
    directory: Path,
) -> list[Path]:
    """Measured and predicted curves with their schedules, and the best schedule."""
    figures = {"curves": _bind(_draw_curves, fit, curves, train)}
    if best is not None:
        figures["best-schedule"] = _bind(_draw_schedule, best)
    return _draw(figures, directory)


def draw_bowls(
    cells: Sequence[Cell],
    by_bowls: dict[str, PowerLaw],
    by_surface: dict[str, PowerLaw],
    directory: Path,
) -> list[Path]:
    """The best value of each hyperparameter against its law."""
    return _draw(
        {
            f"hyperparameters-{name}": _bind(_draw_law, cells, name, law, by_surface[name])
            for name, law in by_bowls.items()
        },
        directory,
    )


def draw_mixture(
    fits: Sequence[DomainFit], shares: Array, losses: Array, held: Array, directory: Path
) -> list[Path]:
    """Measured against predicted loss of each domain."""
    return _draw({"mixture": _bind(_draw_domains, fits, shares, losses, held)}, directory)


def _draw(figures: dict[str, Callable[[], Figure]], directory: Path) -> list[Path]:
    written = []
    with matplotlib.rc_context(STYLE):
        for name, make in figures.items():
            written += save(make(), directory / name)
    return written


def _bind(function: Callable[..., Figure], *given: Any) -> Callable[[], Figure]:
    return lambda: function(*given)


def _plain(*all_axis: Any) -> None:
    """Ticks of a logarithmic axis as plain text: formulas are not parsed in our figures."""
    for axis in all_axis:
        axis.set_major_formatter("{x:.0e}")
        axis.set_minor_formatter(NullFormatter())


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def _draw_chain(chain: Chain) -> Figure:
    panels = 2 if chain.link else 1
    figure = Figure(figsize=(6 * panels, 4.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    sizes = sorted({run.n_params for run in chain.runs})
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(sizes)))
    tokens = [run.n_tokens for run in chain.runs]
    if chain.target:
        tokens.append(chain.target.n_tokens)
    span = np.geomspace(min(tokens) / 1.5, max(tokens) * 1.5, POINTS)
    for n, colour in zip(sizes, colours, strict=True):
        runs = [run for run in chain.runs if run.n_params == n]
        ends = [last(run, chain.settings.average)[0] for run in runs]
        axes[0].plot([r.n_tokens for r in runs], ends, "o", color=colour, label=f"N {n:.3g}")
        axes[0].plot(span, _losses(chain, n, span), color=colour)
    if chain.target is not None and chain.loss is not None:
        target, (actual, _) = chain.target, chain.actual
        axes[0].plot(span, _losses(chain, target.n_params, span), "--", color=COLOURS[1])
        low, high = chain.loss.intervals.get(95, (chain.loss.value,) * 2)
        error = [[max(0, chain.loss.value - low)], [max(0, high - chain.loss.value)]]
        axes[0].errorbar(
            target.n_tokens,
            chain.loss.value,
            yerr=error,
            fmt="*",
            color=COLOURS[1],
            capsize=4,
            markersize=11,
            label=f"{target.name}: predicted, {BAND}",
        )
        if math.isfinite(actual):
            axes[0].plot(target.n_tokens, actual, "x", color="black", label="measured", zorder=5)
    axes[0].set(
        xscale="log", xlabel="training tokens D", ylabel="loss", title=f"{chain.name}: step 1"
    )
    _plain(axes[0].xaxis)
    axes[0].legend(fontsize=8)
    if chain.link:
        _draw_step2(chain, axes[1])
    return figure


def _losses(chain: Chain, n: float, tokens: Array) -> Array:
    x = {"n_params": np.full(tokens.size, math.log(n)), "n_tokens": np.log(tokens)}
    return np.exp(chain.step1.law.log_loss(chain.step1.theta[None], x)[0][0])


def _draw_step2(chain: Chain, axes: Any) -> None:
    loss, score = chain.points
    low = min(loss.min(), chain.loss.value if chain.loss else loss.min()) * 0.95
    grid = np.linspace(low, loss.max(), POINTS)
    assert chain.link is not None
    curves = chain.link.values(chain.theta2, {"loss": grid})[0]
    axes.plot(loss, score, ".", color="0.6", markersize=3, label="evaluations")
    axes.plot(grid, curves[0], color=COLOURS[0], label=chain.link.formula.partition(" = ")[0])
    if len(curves) > 1:
        edges = np.percentile(curves[1:], [2.5, 97.5], axis=0)
        axes.fill_between(grid, *edges, color=COLOURS[0], alpha=0.2, linewidth=0, label=BAND)
    if chain.loss and chain.score:
        low, high = chain.score.intervals.get(95, (chain.score.value,) * 2)
        error = [[max(0, chain.score.value - low)], [max(0, high - chain.score.value)]]
        axes.errorbar(chain.loss.value, chain.score.value, yerr=error, fmt="*", color=COLOURS[1],
                      capsize=4, markersize=11, label="chained", zorder=4)  # fmt: skip
    actual = chain.actual
    if all(map(math.isfinite, actual)):
        axes.plot(*actual, "x", color="black", label="measured", zorder=5)
    axes.set(xlabel="loss", ylabel="score", title=f"{chain.name}: step 2")
    axes.legend(fontsize=8)


def _draw_curves(fit: CurveFit, curves: Sequence[Curve], train: Sequence[str]) -> Figure:
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, curve in zip(grid, curves, strict=False):
        value, refits = fit.predict(curve)
        axes.plot(curve.steps, curve.loss, ".", color="0.55", markersize=3, label="measured")
        axes.plot(curve.steps, value, color=COLOURS[1], linewidth=1.3, label="law")
        if refits.size:
            edges = np.percentile(refits, [2.5, 97.5], axis=0)
            axes.fill_between(
                curve.steps, *edges, color=COLOURS[1], alpha=0.25, linewidth=0, label=BAND
            )
        rates = axes.twinx()
        rates.plot(
            np.arange(curve.rates.size), curve.rates, color=COLOURS[0], alpha=0.4, linewidth=1
        )
        rates.set_ylim(0, curve.rates.max() * 3)
        rates.set_yticks([])
        rates.grid(False)
        what = "fitted" if curve.name in train else "held out"
        axes.set_title(f"{curve.name} ({what})", fontsize=10)
        axes.tick_params(labelsize=8)
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    for axes in grid[: len(curves)]:
        axes.set_xlabel("step", fontsize=9)
    grid[0].set_ylabel("loss", fontsize=9)
    grid[0].legend(fontsize=8)
    return figure


def _draw_schedule(best: BestSchedule) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(best.steps, best.rates, "o-", color=COLOURS[0], markersize=3)
    others = ", ".join(f"{kind} {loss:.4f}" for kind, loss in best.others.items())
    axes.set(xlabel="step", ylabel="learning rate", ylim=(0, best.rates.max() * 1.05))
    axes.set_title(f"best schedule: loss {best.loss:.4f}\n({others})", fontsize=10)
    return figure


def _draw_law(cells: Sequence[Cell], name: str, law: PowerLaw, surface: PowerLaw) -> Figure:
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    used = [cell for cell in cells if not cell.problem]
    sizes = sorted({cell.n_params for cell in used})
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(sizes)))
    tokens = np.array([cell.n_tokens for cell in used])
    span = np.geomspace(tokens.min() / 1.3, tokens.max() * 1.3, POINTS)
    drawn = (
        sizes if "n_params" in law.variables or "tokens_per_param" in law.variables else [sizes[0]]
    )
    for n, colour in zip(sizes, colours, strict=True):
        own = [cell for cell in used if cell.n_params == n]
        axes.plot(
            [c.n_tokens for c in own],
            [c.optimum[name] for c in own],
            "o",
            color=colour,
            label=f"N {n:.3g}",
        )
        if n in drawn:
            shade = colour if len(drawn) > 1 else "black"
            axes.plot(span, [law.at(n, d) for d in span], color=shade, linewidth=1.3)
            axes.plot(span, [surface.at(n, d) for d in span], ":", color=shade, linewidth=1.3)
    axes.plot([], [], color="black", label="through bowls")
    axes.plot([], [], ":", color="black", label="one surface")
    axes.set(xscale="log", yscale="log", xlabel="training tokens D", ylabel=f"best {name}")
    _plain(axes.xaxis, axes.yaxis)
    axes.legend(fontsize=8)
    return figure


def _draw_domains(fits: Sequence[DomainFit], shares: Array, losses: Array, held: Array) -> Figure:
    columns = min(3, len(fits))
    rows = -(-len(fits) // columns)
    figure = Figure(figsize=(3.8 * columns, 3.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, (axes, fit) in enumerate(zip(grid, fits, strict=False)):
        predicted = fit.predict(shares)[0]
        for rows_, colour, label in ((~held, COLOURS[0], "fitted"), (held, COLOURS[1], "held out")):
            if rows_.any():
                axes.plot(
                    predicted[rows_], losses[rows_, k], "o", color=colour, markersize=4, label=label
                )
        low, high = np.nanmin(losses[:, k]), np.nanmax(losses[:, k])
        axes.plot([low, high], [low, high], color="0.5", linewidth=1)
        axes.set(title=fit.domain, xlabel="predicted loss", ylabel="measured loss")
    for axes in grid[len(fits) :]:
        axes.set_axis_off()
    grid[0].legend(fontsize=8)
    return figure
