"""Steps and tokens to a loss at each batch size, and the critical batch size between them.

    python experiments/kaplan2020/critical_batch.py                          from crossings.csv
    python experiments/kaplan2020/critical_batch.py --from runs/batch_size   reads the runs first

Kaplan et al. 2020, eq. 5.1: (S / S_min - 1) (E / E_min - 1) = 1 for the steps S and tokens E that
reach a loss, B_crit = E_min / S_min. So E = E_min + B E_min^2 / (B S - E_min), or in the batch B:
S = S_min (1 + B_crit / B), a line in 1/B, fitted by least squares on log S.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from gpt_jax.runs.tracking import finite_values, read_records

HERE = Path(__file__).resolve().parent
CSV = HERE / "crossings.csv"
LOSSES = (2.6, 2.4, 2.2, 2.0)
SMOOTH_TOKENS = 65_536
"""Of training text that a reading of the loss averages over."""


def crossings(directory: Path) -> list[tuple[int, float, int]]:
    """(tokens of a batch, loss, first step whose smoothed training loss is at most it)."""
    records = finite_values(read_records(directory / "metrics.jsonl"), "loss")
    tokens, losses = (np.array(x) for x in zip(*records, strict=True))
    batch = int(tokens[1] - tokens[0])
    n = max(1, SMOOTH_TOKENS // batch)
    means = np.convolve(losses, np.ones(n) / n, "valid")
    found = []
    for loss in LOSSES:
        below = np.flatnonzero(means <= loss)
        if below.size:
            # The mean of n steps belongs to their middle.
            found.append((batch, loss, int(below[0] + (n + 1) / 2)))
    return found


def fit(batches: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    """(S_min, B_crit) of S = S_min (1 + B_crit / B)."""

    def residuals(theta: np.ndarray) -> np.ndarray:
        return np.log(steps) - theta[0] - np.log1p(np.exp(theta[1]) / batches)

    found = least_squares(residuals, [np.log(steps.min()), np.log(np.median(batches))])
    return float(np.exp(found.x[0])), float(np.exp(found.x[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--from", dest="sweep", type=Path, help="the sweep's directory")
    given = parser.parse_args()
    if given.sweep is not None:
        rows = [r for path in (given.sweep / "trials").iterdir() for r in crossings(path)]
        with CSV.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("batch_tokens", "loss", "steps"), *sorted(rows)])
    with CSV.open(newline="") as file:
        read = [(int(r["batch_tokens"]), float(r["loss"]), int(r["steps"]))
                for r in csv.DictReader(file)]  # fmt: skip
    batches = sorted({batch for batch, _, _ in read})
    steps = {(batch, loss): n for batch, loss, n in read}
    heads = [*(f"{batch:,}" for batch in batches), "S_min", "B_crit (tokens)"]
    print("| steps to a loss, at batches of | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    criticals = []
    for loss in LOSSES:
        known = [batch for batch in batches if (batch, loss) in steps]
        s_min, critical = fit(
            np.array(known, float), np.array([steps[b, loss] for b in known], float)
        )
        criticals.append(critical)
        cells = [f"{steps[b, loss]:,}" if (b, loss) in steps else "not reached" for b in batches]
        print(f"| {loss} | " + " | ".join(cells) + f" | {s_min:,.0f} | {critical:,.0f} |")
    slope, _ = np.polyfit(np.log(LOSSES), np.log(criticals), 1)
    print(
        f"\nB_crit = B_* / L^(1/alpha_B): alpha_B here {-1 / slope:.2f}, in the paper 0.21 (there "
        f"over WebText2's nats per BPE token, here over {len(LOSSES)} losses in nats per byte)"
    )


if __name__ == "__main__":
    main()
