"""Accuracy against shots of the runs of sweep.py, as figure 1.2 of Brown et al. 2020.

    python experiments/in_context/make_figure.py                     the table of accuracy.csv
    python experiments/in_context/make_figure.py --from runs/in_context    scores the runs first

Scoring goes through `gpt_jax.evaluate`, as `gpt-jax eval --task-file` does; it writes accuracy.csv
and accuracy.png beside this file.
"""

import argparse
import csv
from pathlib import Path

from gpt_jax.runtime import prepare_process

prepare_process()

import matplotlib  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from tasks import N_ITEMS, SHOTS, TASKS, best_accuracy  # noqa: E402

from gpt_jax.scaling.plots import COLOURS, STYLE, save  # noqa: E402
from gpt_jax.storage.csv_cells import as_csv  # noqa: E402

HERE = Path(__file__).resolve().parent
CSV = HERE / "accuracy.csv"
COLUMNS = ("run", "n_params", "fingerprint", "shots", "accuracy", "accuracy_standard_error")


def score(sweep: Path) -> list[dict]:
    """A row for each run of the sweep's directory and each number of shots."""
    from gpt_jax.cost.flops import count_parameters
    from gpt_jax.evaluate.evaluator import evaluate_task, load
    from gpt_jax.evaluate.items import ask

    rows = []
    for directory in sorted((sweep / "trials").iterdir()):
        config, evaluator = load(directory, "latest", {})
        n_params = count_parameters(config.model).n_params
        cache = evaluator.open_cache(directory / "evaluation")
        for shots, task in zip(SHOTS, TASKS, strict=True):
            result = evaluate_task(evaluator, task, cache, ask(task, Path(".")))
            facts = {"run": config.name, "n_params": n_params, "shots": shots}
            facts["fingerprint"] = evaluator.identity["fingerprint"]
            rows.append({**facts, **{name: result[name] for name in COLUMNS[4:]}})
        cache.close()
    return sorted(rows, key=lambda row: (row["n_params"], row["shots"]))


def write(rows: list[dict]) -> None:
    CSV.write_text(as_csv(COLUMNS, ([row[name] for name in COLUMNS] for row in rows)), newline="")


def read() -> dict[int, dict[int, tuple[float, float]]]:
    """{parameters: {shots: (accuracy, standard error)}} of accuracy.csv."""
    curves: dict[int, dict[int, tuple[float, float]]] = {}
    with CSV.open(newline="") as file:
        for row in csv.DictReader(file):
            cell = float(row["accuracy"]), float(row["accuracy_standard_error"])
            curves.setdefault(int(row["n_params"]), {})[int(row["shots"])] = cell
    return curves


def draw(curves: dict[int, dict[int, tuple[float, float]]], best: dict[int, float]) -> None:
    """A line a size; K = 0 stands at the left end of a logarithmic axis of its own."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        places = range(len(SHOTS))
        axes.plot(places, [100 * best[k] for k in SHOTS], "--", color="gray", label="best guesser")
        for colour, (n_params, curve) in zip(COLOURS, sorted(curves.items()), strict=False):
            accuracy, error = zip(*(curve[k] for k in SHOTS), strict=True)
            axes.errorbar(
                places, [100 * a for a in accuracy], [100 * e for e in error], fmt="o-",
                color=colour, capsize=3, label=f"{n_params:,} parameters",
            )  # fmt: skip
        axes.set_xticks(list(places), [str(k) for k in SHOTS])
        axes.set(
            xlabel="pairs shown in the context, K",
            ylabel="accuracy (%)",
            title=f"a new cipher each time, {N_ITEMS:,} items a point",
        )
        axes.legend()
        save(figure, HERE / "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--from", dest="sweep", type=Path, help="the sweep's directory: score it")
    given = parser.parse_args()
    if given.sweep is not None:
        write(score(given.sweep))
    curves, best = read(), {k: best_accuracy(k) for k in SHOTS}
    if given.sweep is not None:
        draw(curves, best)
    print("| accuracy (%) at K = | " + " | ".join(map(str, SHOTS)) + " |")
    print("|---" * (len(SHOTS) + 1) + "|")
    for n_params, curve in sorted(curves.items()):
        cells = [f"{100 * a:.1f} +- {100 * e:.1f}" for a, e in (curve[k] for k in SHOTS)]
        print(f"| {n_params:,} parameters | " + " | ".join(cells) + " |")
    print("| best guesser | " + " | ".join(f"{100 * best[k]:.1f}" for k in SHOTS) + " |")


if __name__ == "__main__":
    main()
