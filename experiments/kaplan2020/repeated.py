"""The least loss by size and by how much text there is, from overfitting.csv.

python experiments/kaplan2020/repeated.py
"""

import csv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    with (HERE / "overfitting.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["point"] == "final"]
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


if __name__ == "__main__":
    main()
