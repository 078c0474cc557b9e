"""Loss of each size at each budget, from runs.csv.

python experiments/ladder/make_table.py
"""

import csv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    with (HERE / "runs.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["point"] == "final" and r["budget.flops"]]
    sizes = sorted({int(r["n_params"]) for r in rows})
    budgets = sorted({float(r["budget.flops"]) for r in rows})
    loss = {(float(r["budget.flops"]), int(r["n_params"])): float(r["loss"]) for r in rows}
    print(f"{len(rows)} cooled runs; loss by FLOPs (down) and parameters (across), * the lowest:\n")
    print("| C | " + " | ".join(f"{size:,}" for size in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for budget in budgets:
        found = [loss.get((budget, size)) for size in sizes]
        best = min(x for x in found if x is not None)
        cells = ["" if x is None else f"{x:.3f}{'*' if x == best else ''}" for x in found]
        print(f"| {budget:.2g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
