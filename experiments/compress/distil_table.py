"""What distilling gains, from the runs of distil_sweep.py.

python experiments/compress/distil_table.py runs/distil    reads the runs, writes distilled.json
python experiments/compress/distil_table.py                prints the table again
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "distilled.json"
N_SEEDS = 3
ALONE = (0.0, 1.0)
"""Weight and temperature of a run without a teacher."""


def collect(sweep: Path) -> list[dict[str, Any]]:
    """Of each trial: how it was taught, its loss, and the median seconds of a step."""
    found = []
    for path in sorted(sweep.glob("trials/*/result.json")):
        result = json.loads(path.read_text())
        records = map(json.loads, path.with_name("metrics.jsonl").read_text().splitlines())
        seconds = [r["step_seconds"] for r in records if "step_seconds" in r]
        distill = result["config"]["distill"]
        found.append(
            {
                "weight": distill["weight"] if distill["teacher"] else 0.0,
                "temperature": distill["temperature"],
                "loss": result["validation_loss"],
                "step_seconds": statistics.median(seconds),
                **{k: result[k] for k in ("n_params", "n_tokens", "fingerprint", "name")},
            }
        )
    return found


def table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| weight of the teacher | temperature | loss (nats) | gain | a step |",
        "|---|---|---:|---:|---:|",
    ]
    ways: dict[tuple[float, float], list[dict[str, Any]]] = {}
    for run in runs:
        ways.setdefault((run["weight"], run["temperature"]), []).append(run)
    means = {way: statistics.mean(run["loss"] for run in same) for way, same in ways.items()}
    for (weight, temperature), same in sorted(ways.items()):
        mean, losses = means[weight, temperature], [run["loss"] for run in same]
        deviation = f" ± {statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
        missing = "" if len(losses) == N_SEEDS else f" ({len(losses)} of {N_SEEDS} seeds)"
        gain = f"{means[ALONE] - mean:+.4f}" if ALONE in means else "missing"
        seconds = statistics.median(run["step_seconds"] for run in same)
        lines.append(
            f"| {weight or 'none: the text alone'} | {temperature if weight else ''} "
            f"| {mean:.4f}{deviation}{missing} | {gain} | {1e3 * seconds:.0f} ms |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        RESULTS.write_text(json.dumps(collect(Path(sys.argv[1])), indent=1) + "\n")
    elif len(sys.argv) > 2:
        sys.exit(__doc__)
    print(table(json.loads(RESULTS.read_text())))
