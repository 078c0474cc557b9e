"""The least loss by size and by how much text there is, and L(N, D) through it.

python experiments/kaplan2020/repeated.py            the table, from overfitting.csv
python experiments/kaplan2020/repeated.py --draw     and figure 9 of Kaplan et al. 2020 with ours
"""

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from gpt_jax.scaling.catalog import find_law
from gpt_jax.scaling.fit import fit_law
from gpt_jax.scaling.table import make_table, read_runs

HERE = Path(__file__).resolve().parent
CSV = HERE / "overfitting.csv"
COLUMNS = {
    "n_params": "n_params_non_embedding",
    "n_tokens": "unique_tokens",
    "flops": "flops_kaplan",
    "loss": "best_loss",
}


def print_table() -> None:
    with CSV.open(newline="") as file:
        rows = list(csv.DictReader(file))
    limits = list(dict.fromkeys(r["data.unique_tokens"] for r in rows))
    found = {(r["n_params_non_embedding"], r["data.unique_tokens"]): r for r in rows}
    heads = [f"{int(x):,} bytes" if x else "no end" for x in limits]
    print("| N, non-embedding | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for size in dict.fromkeys(size for size, _ in found):
        cells = []
        for limit in limits:
            row = found[size, limit]
            best, last = float(row["best_loss"]), float(row["loss"])
            cells.append(f"{best:.3f}" + (f" (at the end {last:.2f})" if last > 1.1 * best else ""))
        print(f"| {int(size):,} | " + " | ".join(cells) + " |")


def draw(path: Path) -> None:
    """The least loss against the text that there is: runs, and lines of L(N, D)."""
    runs = read_runs(CSV, columns=COLUMNS)
    fit = fit_law(find_law("kaplan-nd"), runs)
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    along = np.geomspace(runs["n_tokens"].min(), runs["n_tokens"].max(), 100)
    for i, size in enumerate(np.unique(runs["n_params"])):
        of_size, color = runs.take(runs["n_params"] == size), f"C{i}"
        axes.plot(of_size["n_tokens"], of_size["loss"], "o", color=color, label=f"{size:,.0f}")
        law = make_table(n_params=np.full(100, size), n_tokens=along, loss=np.ones(100))
        axes.plot(along, fit.predict(law), color=color, lw=1)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="bytes of text, read again and again",
        ylabel="least validation loss (nats per byte)",
    )
    axes.yaxis.set_major_formatter("{x:.1f}")
    axes.yaxis.set_minor_formatter("{x:.1f}")
    axes.legend(title="N, non-embedding", frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draw", action="store_true", help="write overfitting.png")
    print_table()
    if parser.parse_args().draw:
        draw(HERE / "overfitting.png")


if __name__ == "__main__":
    main()
