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
    losses = {way: [run["loss"] for run in same] for way, same in ways.items()}
    alone = statistics.mean(losses[0.0, 1.0])
    for weight, temperature in sorted(ways):
        mine = losses[weight, temperature]
        seconds = [run["step_seconds"] for run in ways[weight, temperature]]
        missing = "" if len(mine) == N_SEEDS else f" ({len(mine)} of {N_SEEDS} seeds)"
        lines.append(
            f"| {weight or 'none: the text alone'} | {temperature if weight else ''} "
            f"| {statistics.mean(mine):.4f} ± {statistics.stdev(mine):.4f}{missing} "
            f"| {alone - statistics.mean(mine):+.4f} | {1e3 * statistics.median(seconds):.0f} ms |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        RESULTS.write_text(json.dumps(collect(Path(sys.argv[1])), indent=1) + "\n")
    elif len(sys.argv) > 2:
        sys.exit(__doc__)
    print(table(json.loads(RESULTS.read_text())))
