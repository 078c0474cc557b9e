"""GPT-4's predictable scaling on the ladder: the dearest run's loss from runs of a thousandth.

    python experiments/gpt4/predict.py              prints the table; --draw draws predicted.png too

Fits L(C) = a C^b + c to the compute-efficient runs of experiments/ladder/runs.csv (no run of the
same or less compute is better) up to a share of the target's compute; C counts all products.
prediction.json is what it said before the target's loss was read: --predict writes it.
"""

import argparse
import csv
import json
import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gpt_jax.scaling.catalog import find_law
from gpt_jax.scaling.fit import LawFit, all_parameters, fit_law
from gpt_jax.scaling.plots import COLOURS, STYLE, save
from gpt_jax.scaling.table import RunTable, pareto, read_runs

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "ladder" / "runs.csv"
PREDICTION = HERE / "prediction.json"
TARGET = "n_layers=4,d_model=80,flops=3e13"
SHARES = (1 / 1000, 1 / 300, 1 / 100, 1 / 30, 1 / 10, 1 / 3)
"""Of the target's compute: the dearest run that a fit sees. The report's was 1/10,000 or less."""
NATS_PER_BIT = math.log(2)


def target_row() -> dict[str, str]:
    """The row of the run that is predicted."""
    with RUNS.open(newline="") as file:
        rows = (r for r in csv.DictReader(file) if r["run"] == TARGET and r["point"] == "final")
        return next(rows)


def efficient(runs: RunTable, most: float) -> RunTable:
    """The runs of at most this compute which no cheaper run beats (budgets hold to 1%)."""
    return pareto(runs.take(np.flatnonzero(runs["flops"] <= 1.01 * most)))


def predict(runs: RunTable, most: float, flops: float) -> tuple[float, LawFit]:
    """The loss at `flops` by runs of at most `most`, in nats per byte, and the fit."""
    fit = fit_law(find_law("compute-power"), efficient(runs, most))
    values = all_parameters(fit)
    return float(values["a"] * flops ** values["b"] + values["c"]), fit


def describe(fit: LawFit) -> str:
    values = all_parameters(fit)
    return f"L = {values['a']:.4g} C^{values['b']:.4f} + {values['c']:.4f}"


def draw(runs: RunTable, flops: float, loss: float) -> None:
    """As figure 1 of the report: observed runs, the prediction, the run itself."""
    predicted, fit = predict(runs, SHARES[0] * flops, flops)
    values = all_parameters(fit)
    seen, all_best = efficient(runs, SHARES[0] * flops), efficient(runs, flops / 1.1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        x = np.geomspace(all_best["flops"].min() / flops, 1.5, 200)
        curve = (values["a"] * (x * flops) ** values["b"] + values["c"]) / NATS_PER_BIT
        axes.plot(x, curve, "--", color=COLOURS[0], label="prediction, from the filled points")
        axes.plot(
            all_best["flops"] / flops, all_best["loss"] / NATS_PER_BIT, "o", color="gray",
            fillstyle="none", label="observed, not fitted",
        )  # fmt: skip
        axes.plot(
            seen["flops"] / flops, seen["loss"] / NATS_PER_BIT, "o", color="gray", label="observed"
        )
        axes.plot(1, loss / NATS_PER_BIT, "o", color=COLOURS[2], markersize=10, label="the target")
        axes.set_xscale("log")
        axes.set(
            xlabel="compute, as a share of the target's",
            ylabel="bits per byte, held-out files",
            title=f"a target of {flops:.0e} FLOPs: predicted {predicted / NATS_PER_BIT:.3f}, "
            f"measured {loss / NATS_PER_BIT:.3f}",
        )
        axes.legend()
        save(figure, HERE / "predicted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draw", action="store_true", help="write predicted.png and .svg")
    parser.add_argument("--predict", action="store_true", help="write prediction.json, and no more")
    given = parser.parse_args()
    row, runs = target_row(), read_runs(RUNS)
    flops = float(row["flops"])
    if given.predict:
        predicted, fit = predict(runs, SHARES[0] * flops, flops)
        record = {"run": TARGET, "flops": flops, "law": describe(fit), "predicted_loss": predicted}
        PREDICTION.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record))
        return
    loss = float(row["loss"])
    print(
        f"Target: {int(row['n_params']):,} parameters, {int(row['n_tokens']):,} tokens, "
        f"{flops:.3g} FLOPs, fingerprint {row['fingerprint']}; measured "
        f"{loss:.4f} +- {float(row['loss_standard_error']):.4f} nats per byte. Said before its "
        f"loss was read: {json.loads(PREDICTION.read_text())['predicted_loss']:.4f}.\n"
    )
    header = ("fit sees at most", "runs", "law", "predicted", "measured", "error")
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for share in SHARES:
        predicted, fit = predict(runs, share * flops, flops)
        print(
            f"| 1/{1 / share:,.0f} of the compute | {len(fit.runs)} | {describe(fit)} | "
            f"{predicted:.4f} | {loss:.4f} | {100 * (predicted / loss - 1):+.2f}% |"
        )
    if given.draw:
        draw(runs, flops, loss)


if __name__ == "__main__":
    main()
