"""The figure of a comparison: both curves, and the multiplier with its band.

Must not import jax.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from gpt_jax.scaling.compare import COSTS, Comparison, CostComparison
from gpt_jax.scaling.plots import COLOURS, LABELS, POINTS, STYLE, save

X_LABELS = {**LABELS, "training_seconds": "training time (s)"}


def draw_comparison(found: Comparison, directory: Path) -> list[Path]:
    """compare-compute.png and .svg, and the same for tokens and seconds; the paths written."""
    written = []
    with matplotlib.rc_context(STYLE):
        for cost in found.costs:
            figure = Figure(figsize=(10.5, 4.4), layout="constrained")
            left, right = figure.subplots(1, 2)
            _draw_curves(left, found, cost)
            _draw_multiplier(right, found, cost)
            written += save(figure, directory / f"compare-{cost.kind}")
    return written


def _draw_curves(axes: Axes, found: Comparison, cost: CostComparison) -> None:
    """Runs and curves of both, and the target as an arrow from B's cost to A's."""
    column = COSTS[cost.kind]
    for k, (ladder, marker) in enumerate(((found.a, "o"), (found.b, "s"))):
        x = ladder.runs[column]
        axes.scatter(x, ladder.runs["loss"], s=26, marker=marker, color=COLOURS[k], zorder=3)
        ends = np.geomspace(x.min(), x.max(), POINTS)
        losses = np.exp(cost.law.curve(cost.theta[None], k, np.log(ends))[0])
        axes.plot(ends, losses, color=COLOURS[k], label=f"{'AB'[k]}: {ladder.name}")
    target = cost.target
    start, end = target.cost, target.cost * target.value
    arrow = {"arrowstyle": "->", "color": "0.2", "linewidth": 1.4}
    axes.annotate("", (end, target.loss), (start, target.loss), arrowprops=arrow)
    axes.annotate(
        f"{target.value:.2f} times", ((start * end) ** 0.5, target.loss), (-12, -14),
        textcoords="offset points", ha="right", fontsize=10,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain(axes)
    axes.set_xlabel(X_LABELS[column])
    axes.set_ylabel(LABELS["loss"] if found.metric == "loss" else found.metric.replace("_", " "))
    axes.legend(frameon=False, fontsize=9)


def _draw_multiplier(axes: Axes, found: Comparison, cost: CostComparison) -> None:
    """How many times the cost A needs, over what B spends, with 80% and 95% bands."""
    x = np.array([point.cost for point in cost.curve])
    value = np.array([point.value for point in cost.curve])
    axes.axhline(1, color="0.4", linewidth=1)
    axes.plot(x, value, color=COLOURS[2])
    for level, alpha in ((95, 0.15), (80, 0.25)):
        low, high = np.array([point.intervals[level] for point in cost.curve]).T
        axes.fill_between(
            x, low, high, color=COLOURS[2], alpha=alpha, linewidth=0, label=f"{level}% interval"
        )
    target = cost.target
    low, high = target.intervals[95]
    sides = np.nan_to_num([[target.value - low], [high - target.value]])
    axes.errorbar(
        target.cost, target.value, sides, fmt="*", color=COLOURS[1], markersize=12, capsize=4,
        label=cost.asked,
    )  # fmt: skip
    edges = np.array([point.intervals[95] for point in cost.curve])
    middle = edges[len(edges) // 4 : -len(edges) // 4 or None]
    bottom, top = np.nanmin([middle.min(), low, 0.9]), np.nanmax([middle.max(), high, 1.1])
    axes.set_ylim(bottom / 1.3, top * 1.3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain(axes)
    axes.set_xlabel(f"{X_LABELS[COSTS[cost.kind]]} of B")
    axes.set_ylabel(f"times the {cost.kind} that A needs")
    axes.legend(frameon=False, fontsize=9)


def _plain(axes: Axes) -> None:
    """Plain numbers along y, which seldom spans a decade."""
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
