"""nanoGPT's CPU run beside ours: three seeds each of its recipe and of our best one.

    python experiments/nanogpt/make_table.py TINYSHAKESPEARE [--runs runs/nanogpt]

Trains what is not trained yet (about two to three minutes a run on two cores), prints the table,
and writes runs.csv and losses.png beside this file.
"""

import argparse
import json
import statistics
from pathlib import Path

from gpt_jax.runtime import prepare_process

prepare_process()

from matplotlib.figure import Figure  # noqa: E402

from gpt_jax.config import overrides  # noqa: E402
from gpt_jax.runs.tracking import finite_values, read_records, smooth  # noqa: E402
from gpt_jax.storage.csv_cells import as_csv  # noqa: E402
from gpt_jax.train.loop import train  # noqa: E402

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent.parent / "configs"
SEEDS = (0, 1, 2)
RECIPES = {
    "nanoGPT's recipe": "nanogpt_shakespeare_char_cpu",
    "our best recipe": "shakespeare_char_cpu_best",
}
NANOGPT_SAMPLED, NANOGPT_WHOLE_SPLIT = 1.88, 1.898
"""nanoGPT's README; and a model trained by nanoGPT's code, scored over the whole split."""
COLUMNS = (
    "recipe",
    "seed",
    "n_params",
    "n_tokens",
    "flops",
    "flops_6nd",
    "validation_loss",
    "validation_loss_standard_error",
    "fingerprint",
    "commit",
)


def run(config_name: str, seed: int, text: Path, runs: Path) -> dict:
    """The row of one run, trained if it was not."""
    changes = {"seed": seed, "data.path": str(text), "evaluate.sample_tokens": 0}
    config = overrides.load(CONFIGS / f"{config_name}.py", changes)
    directory = runs / f"{config_name}-{seed}"
    result = train(config, directory)
    commit = json.loads((directory / "config.json").read_text())["commit"]
    return {**result, "seed": seed, "commit": commit, "directory": directory}


def draw(rows: list[dict]) -> None:
    """Training loss (smoothed) and validation loss against tokens, a line a run."""
    figure = Figure(figsize=(7.5, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for color, recipe in zip(("C0", "C3"), RECIPES, strict=True):
        for row in (r for r in rows if r["recipe"] == recipe):
            records = read_records(row["directory"] / "metrics.jsonl")
            tokens, losses = zip(*finite_values(records, "loss"), strict=True)
            axes.plot(tokens, smooth(losses), color=color, linewidth=0.8, alpha=0.5)
            label = f"gpt_jax, {recipe}" if row["seed"] == SEEDS[0] else None
            points = finite_values(records, "validation_loss")
            axes.plot(*zip(*points, strict=True), "o-", color=color, markersize=4, label=label)
    axes.axhline(NANOGPT_WHOLE_SPLIT, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        f"a model trained by nanoGPT's code: {NANOGPT_WHOLE_SPLIT}",
        (0, NANOGPT_WHOLE_SPLIT),
        (6, -12),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
    )
    axes.set(
        xlabel="training tokens (characters of tinyshakespeare)",
        ylabel="loss (nats per character)",
        title="804,096 parameters, 1.536 million tokens, three seeds each\n"
        "thin: training, smoothed; dots: validation, whole split",
        ylim=(1.3, 2.8),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(HERE / "losses.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path, help="tinyshakespeare's input.txt")
    parser.add_argument("--runs", type=Path, default=Path("runs/nanogpt"))
    arguments = parser.parse_args()
    rows = [
        {"recipe": recipe, **run(config, seed, arguments.text, arguments.runs)}
        for recipe, config in RECIPES.items()
        for seed in SEEDS
    ]
    cells = ([row.get(name) for name in COLUMNS] for row in rows)
    (HERE / "runs.csv").write_text(as_csv(COLUMNS, cells), newline="")
    draw(rows)
    print("| run | parameters | tokens | validation loss, whole split (nats per character) |")
    print("|---|---|---|---|")
    print(f"| nanoGPT, its code | 804,096 | 1,536,000 | {NANOGPT_WHOLE_SPLIT} |")
    for recipe in RECIPES:
        mine = [row for row in rows if row["recipe"] == recipe]
        losses = [row["validation_loss"] for row in mine]
        print(
            f"| gpt_jax, {recipe} | {mine[0]['n_params']:,} | {mine[0]['n_tokens']:,} | "
            f"{statistics.mean(losses):.4f} (three seeds, {min(losses):.4f} to "
            f"{max(losses):.4f}) |"
        )


if __name__ == "__main__":
    main()
