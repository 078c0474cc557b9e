"""The tables of README.md, from the results of the sweeps.

python experiments/finetune/make_table.py scores     pretrained, from scratch, and baselines
python experiments/finetune/make_table.py methods    trained parameters, memory, time, score
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCORES = {"sst2": "accuracy", "rte": "accuracy", "wnut17": "entity_f1"}
SEEDS = range(3)


def results(sweep: str) -> dict[str, dict[str, Any]]:
    """{trial: result.json} of a sweep in runs/."""
    paths = Path("runs", sweep, "trials").glob("*/result.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def scores() -> str:
    found = results("finetune")
    baselines = json.loads((HERE / "baselines.json").read_text())
    lines = [
        "| task | score | pretrained | from scratch | baseline |",
        "|---|---|---|---|---|",
    ]
    for task, score in SCORES.items():
        cells = []
        for start in ("pretrained", "scratch"):
            values = [
                found[name][f"test_{score}"]
                for seed in SEEDS
                if (name := f"{task}-{start}-{seed}") in found
            ]
            cells.append(spread([100 * value for value in values]))
        baseline = f"{100 * baselines[task]:.1f}"
        lines.append(f"| {task} | {score} | {cells[0]} | {cells[1]} | {baseline} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and standard deviation of what there is."""
    if not values:
        return "missing"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    missing = "" if len(values) == len(SEEDS) else f" ({len(values)} of {len(SEEDS)} seeds)"
    return f"{statistics.mean(values):.1f}{deviation}{missing}"


def methods() -> str:
    lines = [
        "| method | trained parameters | optimizer state | step | test accuracy |",
        "|---|---|---|---|---|",
    ]
    for name, result in sorted(
        results("methods").items(), key=lambda item: -item[1]["n_params_trained"]
    ):
        records = Path("runs/methods/trials", name, "metrics.jsonl").read_text().splitlines()
        seconds = [r["step_seconds"] for r in map(json.loads, records) if "step_seconds" in r]
        lines.append(
            f"| {name.removeprefix('sst2-')} | {result['n_params_trained']:,} "
            f"| {result['optimizer_bytes'] / 2**20:.2f} MiB "
            f"| {1e3 * statistics.median(seconds[5:]):.0f} ms "
            f"| {100 * result['test_accuracy']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] not in (["scores"], ["methods"]):
        sys.exit(__doc__)
    print({"scores": scores, "methods": methods}[sys.argv[1]]())
