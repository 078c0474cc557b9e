"""Loss against the shape at a fixed number of non-embedding parameters, from aspect_ratio.csv.

python experiments/kaplan2020/make_table.py
"""

import csv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    with (HERE / "aspect_ratio.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["point"] == "final"]
    best = min(float(r["loss"]) for r in rows)
    print("| layers x width | width / layers | N, non-embedding | loss (nats per byte) | above |")
    print("|---|---|---|---|---|")
    for r in rows:
        layers, width, loss = int(r["model.n_layers"]), int(r["model.d_model"]), float(r["loss"])
        print(
            f"| {layers} x {width} | {width / layers:.2f} | "
            f"{int(r['n_params_non_embedding']):,} | {loss:.3f} | {100 * (loss / best - 1):.1f}% |"
        )


if __name__ == "__main__":
    main()
