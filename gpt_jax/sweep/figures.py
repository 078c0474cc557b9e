"""Figures of a sweep's runs, beside those of its fits: curves, final losses, hyperparameters.

Must not import jax.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from gpt_jax.runs.tracking import smooth
from gpt_jax.scaling.plots import COLOURS, LABELS, STYLE, save
from gpt_jax.scaling.table import make_table, pareto
from gpt_jax.sweep.table import Measured, Row, varied_keys, varied_value

POINTS_IN_ALL = 20_000
"""Most points that all curves of a figure have together, so that an SVG stays small."""
FEWEST_VALUES = 3
"""Fewest values of a hyperparameter, at one setting of the others, for which a line is drawn."""
MOST_IN_LEGEND = 9
HYPERPARAMETERS = ("optimizer.", "schedule.", "train.batch_sequences", "train.z_loss")
"""Keys that begin so are drawn against the final loss."""
BUDGET_KEYS = ("budget.", "train.tokens")
SKIPPED_SHARE = 0.01
"""Share of a curve that is not drawn: the fall from log(vocabulary) would fill the figure."""

COLOUR_MAP = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256)), "sizes")
"""Without the yellow end, which cannot be seen on white."""

Colours = Callable[[Any], Any]
"""value of the colouring key -> colour"""


def draw_sweep(trials: Sequence[Measured], rows: Sequence[Row], directory: Path) -> list[Path]:
    """Every figure that the runs have data for; returns the files written."""
    written = []
    with matplotlib.rc_context(STYLE):
        for name, draw in figures(trials, rows).items():
            figure = Figure(figsize=(7, 5), layout="constrained")
            draw(figure.add_subplot())
            written += save(figure, directory / name)
    return written


def figures(trials: Sequence[Measured], rows: Sequence[Row]) -> dict[str, Callable[[Axes], None]]:
    """{name: function that draws it on an Axes}"""
    found: dict[str, Callable[[Axes], None]] = {}
    if any(len(trial.curve) for trial in trials):
        found["loss-curves"] = lambda axes: draw_curves(axes, trials, rows)
    measured = [row for row in rows if row["loss"] is not None]
    if len({row["flops"] for row in measured}) > 1:
        found["final-loss-against-compute"] = lambda axes: draw_final_losses(axes, measured)
    for key in varied_keys(trials):
        lines = hyperparameter_lines(trials, key)
        if lines:
            name = f"final-loss-against-{key.rsplit('.', 1)[-1].replace('_', '-')}"
            found[name] = functools.partial(
                draw_hyperparameter, key=key, lines=lines, trials=trials
            )
    return found


def draw_curves(axes: Axes, trials: Sequence[Measured], rows: Sequence[Row]) -> None:
    """Smoothed training losses of all runs against compute (or tokens, where all cost the same)."""
    per_token = {row["run"]: row["flops"] / row["n_tokens"] for row in rows}
    several = len({row["n_params"] for row in rows}) > 1
    drawn = [trial for trial in trials if len(trial.curve)]
    label, values, colours = colouring(axes, drawn, rows)
    most = max(50, POINTS_IN_ALL // len(drawn))
    shown: set[Any] = set()
    for trial, value in zip(drawn, values, strict=True):
        tokens, losses = trial.curve.T
        chosen = _spread(len(tokens), most)
        x = tokens[chosen] * (per_token[trial.entry.name] if several else 1)
        y = np.array(smooth(losses.tolist()))[chosen]
        broken = trial.state in ("diverged", "failed", "damaged")
        axes.plot(x, y, "--" if broken else "-", color=colours(value), linewidth=1.1, alpha=0.85)
        if broken:
            axes.plot(x[-1], y[-1], "x", color=COLOURS[1], zorder=5)
            if "broken" not in shown:
                axes.plot([], [], "x--", color=COLOURS[1], label="diverged or failed")
                shown.add("broken")
    axes.set_xscale("log")
    _loss_axis(axes)
    axes.set_xlabel(LABELS["flops" if several else "n_tokens"])
    axes.set_ylabel(f"training {LABELS['loss']}, smoothed")
    axes.set_title(f"training losses, coloured by {label}" if label else "training losses")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def draw_final_losses(axes: Axes, rows: Sequence[Row]) -> None:
    """Final losses against compute, coloured by size; hollow where they are not cooled."""
    sizes = np.array([row["n_params"] for row in rows], float)
    norm = LogNorm(sizes.min(), max(sizes.max(), sizes.min() * 1.001))
    colour_map = COLOUR_MAP
    for cooled, name in ((True, "cooled"), (False, "before the cooldown")):
        part = [i for i, row in enumerate(rows) if row["cooled"] is cooled]
        if not part:
            continue
        colours = colour_map(norm(sizes[part]))
        x, y = [rows[i]["flops"] for i in part], [rows[i]["loss"] for i in part]
        faces = colours if cooled else "none"
        axes.scatter(x, y, s=26, facecolors=faces, edgecolors=colours, zorder=3, label=name)
        best = pareto(make_table(flops=x, loss=y))
        if cooled and len(best) > 1:
            order = np.argsort(best["flops"])
            line = best["flops"][order], best["loss"][order]
            axes.plot(*line, color=COLOURS[1], label="no cheaper run is better")
    if len(np.unique(sizes)) > 1:
        axes.figure.colorbar(ScalarMappable(norm, colour_map), ax=axes, label=LABELS["n_params"])
    axes.set_xscale("log")
    _loss_axis(axes)
    axes.set_xlabel(LABELS["flops"])
    axes.set_ylabel(f"final validation {LABELS['loss']}")
    axes.set_title("final loss against compute")
    axes.legend(fontsize=8)


def hyperparameter_lines(trials: Sequence[Measured], key: str) -> dict[str, dict[float, float]]:
    """{setting of the other keys: {value: final loss, mean over seeds}}, where enough are done."""
    if not key.startswith(HYPERPARAMETERS):
        return {}
    others = [k for k in varied_keys(trials) if k not in (key, "seed")]
    found: dict[str, dict[float, list[float]]] = {}
    for trial in trials:
        value = varied_value(trial, key)
        if trial.loss is not None and isinstance(value, int | float):
            setting = ", ".join(f"{short(k)} {show(varied_value(trial, k))}" for k in others)
            found.setdefault(setting, {}).setdefault(float(value), []).append(trial.loss)
    return {
        setting: {value: float(np.mean(line[value])) for value in sorted(line)}
        for setting, line in found.items()
        if len(line) >= FEWEST_VALUES
    }


def draw_hyperparameter(
    axes: Axes, key: str, lines: dict[str, dict[float, float]], trials: Sequence[Measured]
) -> None:
    """Final loss against a hyperparameter, a line for each setting of the others."""
    colours = COLOUR_MAP(np.linspace(0, 1, len(lines)))
    for (setting, line), colour in zip(lines.items(), colours, strict=True):
        x, y = list(line), list(line.values())
        axes.plot(x, y, "o-", color=colour, markersize=4, label=setting or None)
        best = int(np.argmin(y))
        axes.plot(x[best], y[best], "*", color=COLOURS[1], markersize=13, zorder=4)
    axes.plot([], [], "*", color=COLOURS[1], markersize=11, label="lowest")
    lost = [varied_value(t, key) for t in trials if t.state == "diverged"]
    lost = sorted(v for v in lost if isinstance(v, int | float))
    if lost:
        axes.plot(
            lost, [0.97] * len(lost), "x", color=COLOURS[1],
            transform=axes.get_xaxis_transform(), label="diverged",
        )  # fmt: skip
    values = [value for line in lines.values() for value in line]
    if min(values) > 0 and max(values) / min(values) > 4:
        axes.set_xscale("log")
    axes.set_xlabel(LABELS.get(short(key), short(key).replace("_", " ")))
    axes.set_ylabel(f"final validation {LABELS['loss']}")
    axes.set_title(f"final loss against {short(key).replace('_', ' ')}")
    if len(lines) <= MOST_IN_LEGEND:
        axes.legend(fontsize=8)


def colouring(
    axes: Axes, trials: Sequence[Measured], rows: Sequence[Row]
) -> tuple[str, list[Any], Colours]:
    """Quantity that colours the curves: (its name, the value of each trial, value -> colour).

    The size if it varies, else the varied key with the most values. Draws its colour bar or adds
    to the legend. With nothing to tell apart the name is empty.
    """
    sizes = {row["run"]: row["n_params"] for row in rows}
    name, values = LABELS["n_params"], [sizes[t.entry.name] for t in trials]
    if len(set(values)) == 1:
        keys = [k for k in varied_keys(trials) if not k.startswith(BUDGET_KEYS)]
        choices = {k: [varied_value(t, k) for t in trials] for k in keys}
        key = max(choices, key=lambda k: len(set(map(show, choices[k]))), default="")
        name, values = short(key), choices.get(key, [None] * len(trials))
    distinct: list[Any] = sorted(set(values if _numeric(values) else map(show, values)))
    colour_map = COLOUR_MAP
    if len(distinct) <= 1:
        return "", values, lambda _: COLOURS[0]
    if _numeric(values) and len(distinct) > MOST_IN_LEGEND:
        low, high = distinct[0], distinct[-1]
        norm = LogNorm(low, high) if low > 0 and high / low > 4 else Normalize(low, high)
        axes.figure.colorbar(ScalarMappable(norm, colour_map), ax=axes, label=name)
        return name, values, lambda value: colour_map(norm(value))
    shades = colour_map(np.linspace(0, 1, len(distinct)))
    chosen = {show(value): shade for value, shade in zip(distinct, shades, strict=True)}
    if len(distinct) <= MOST_IN_LEGEND:
        for value in distinct:
            axes.plot([], [], color=chosen[show(value)], label=show(value))
    return name, values, lambda value: chosen[show(value)]


def short(key: str) -> str:
    """The last part of a dotted key."""
    return key.rsplit(".", 1)[-1]


def show(value: Any) -> str:
    """A value as few characters."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _loss_axis(axes: Axes) -> None:
    """Losses span less than a decade: plain numbers, also between the powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(v, int | float) and math.isfinite(v) for v in values)


def _spread(count: int, most: int) -> np.ndarray:
    """Indices of at most so many of `count` points, evenly over their logarithm; the last is in."""
    first = min(int(SKIPPED_SHARE * count), count - 1)
    places = np.geomspace(first + 1, count, min(most, count)) - 1
    return np.unique(np.round(places).astype(int))
