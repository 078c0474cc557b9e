"""The figure and the table of experiments/mup: final loss against learning rate, by width.

    python experiments/mup/make_figure.py runs/mup

Reads runs/mup/report/runs.csv (`gpt-jax sweep report`), writes runs.csv, transfer.png and
transfer.svg beside this file, and prints the best learning rate of each width.
"""

import csv
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gpt_jax.scaling.plots import COLOURS, STYLE, save

HERE = Path(__file__).resolve().parent
PANELS = {"standard": "standard parametrization", "mup": "muP, base width 256"}

Curves = dict[str, dict[int, list[tuple[float, float]]]]
"""{parametrization: {width: [(learning rate, loss), ...]}}; a diverged run has no loss, nan."""


def read(path: Path) -> Curves:
    """The runs of a report's runs.csv."""
    curves: Curves = {name: {} for name in PANELS}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            by_width = curves[row["model.parametrization"]]
            loss = float(row["loss"] or "nan")
            by_width.setdefault(int(row["model.d_model"]), []).append(
                (float(row["optimizer.learning_rate"]), loss)
            )
    return {name: {w: sorted(c) for w, c in sorted(by.items())} for name, by in curves.items()}


def best_rate(curve: list[tuple[float, float]]) -> tuple[float, float]:
    """(learning rate, loss) at the minimum of a parabola through the three lowest neighbours."""
    rates, losses = np.log2([r for r, _ in curve]), np.array([loss for _, loss in curve])
    low = int(np.nanargmin(losses))
    near = slice(max(0, low - 1), low + 2)
    if len(rates[near]) < 3 or np.isnan(losses[near]).any():
        return float(2 ** rates[low]), float(losses[low])
    a, b, c = np.polyfit(rates[near], losses[near], 2)
    return float(2 ** (-b / (2 * a))), float(c - b**2 / (4 * a))


def draw(curves: Curves) -> None:
    """Two panels: the minima wander in one and stay in the other."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, (name, title) in zip(panels, PANELS.items(), strict=True):
            for colour, (width, curve) in zip(COLOURS, curves[name].items(), strict=False):
                rates, losses = zip(*curve, strict=True)
                panel.plot(rates, losses, "o-", color=colour, markersize=4, label=f"width {width}")
                rate, loss = best_rate(curve)
                panel.plot(rate, loss, "*", color=colour, markersize=14)
            panel.set_xscale("log", base=2)
            panel.set(title=title, xlabel="peak learning rate")
        lowest = min(loss for by in curves.values() for c in by.values() for _, loss in c)
        panels[0].set_ylim(lowest - 0.1, lowest + 1.4)
        panels[0].set_ylabel("validation loss (nats per byte)")
        panels[0].legend()
        save(figure, HERE / "transfer")


def main() -> None:
    report = Path(sys.argv[1]) / "report" / "runs.csv"
    if not report.exists():
        sys.exit(f"no {report}: gpt-jax sweep report experiments/mup/sweep.py writes it")
    if report.resolve() != (HERE / "runs.csv").resolve():
        shutil.copyfile(report, HERE / "runs.csv")
    curves = read(HERE / "runs.csv")
    draw(curves)
    print("| width | best rate, standard | loss | best rate, muP | loss |\n|---|---|---|---|---|")
    for width in curves["mup"]:
        cells = [best_rate(curves[name][width]) for name in PANELS]
        print(f"| {width} | " + " | ".join(f"{r:.4f} | {loss:.3f}" for r, loss in cells) + " |")
    for name, by_width in curves.items():
        rates = [best_rate(curve)[0] for curve in by_width.values()]
        print(f"{name}: the best rate moves by {max(rates) / min(rates):.1f} times over the widths")


if __name__ == "__main__":
    main()
