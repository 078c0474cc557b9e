"""The tables of README.md, from the results of the sweeps.

python experiments/finetune/make_table.py scores     pretrained, from scratch, and baselines
python experiments/finetune/make_table.py methods    trained parameters, memory, time, score
python experiments/finetune/make_table.py adversarial    with and without adversarial training
python experiments/finetune/make_table.py collect    results.json anew, of the sweeps that are here
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCORES = {"sst2": "accuracy", "rte": "accuracy", "wnut17": "entity_f1"}
SEEDS = range(3)
RESULTS = HERE / "results.json"


KEPT = ("fingerprint", "n_params", "n_params_trained", "optimizer_bytes", "n_steps", "n_tokens")


def collect() -> str:
    """results.json: of each trial what the tables need, and the median seconds of a step.

    What is known of sweeps that are not here is kept.
    """
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for path in sorted(Path("runs").glob("*/trials/*/result.json")):
        result = json.loads(path.read_text())
        lines = path.with_name("metrics.jsonl").read_text().splitlines()
        seconds = [r["step_seconds"] for r in map(json.loads, lines) if "step_seconds" in r]
        kept = {k: x for k, x in result.items() if k in KEPT or k.startswith("test_")}
        sweep = found.setdefault(path.parts[1], {})
        sweep[path.parent.name] = kept | {"step_seconds": statistics.median(seconds[5:])}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    return f"{sum(map(len, found.values()))} runs in {RESULTS}"


def results(sweep: str) -> dict[str, dict[str, Any]]:
    """{trial: what is kept of its result}."""
    return json.loads(RESULTS.read_text()).get(sweep, {})


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
        lines.append(
            f"| {name.removeprefix('sst2-')} | {result['n_params_trained']:,} "
            f"| {result['optimizer_bytes'] / 2**20:.2f} MiB "
            f"| {1e3 * result['step_seconds']:.0f} ms "
            f"| {100 * result['test_accuracy']:.1f} |"
        )
    return "\n".join(lines)


ATTACKS = {
    "test_accuracy": "as they are",
    "test_accuracy_character_noise": "character noise",
    "test_accuracy_word_swaps": "swapped words",
}


TRAINED = {
    "none": "plain",
    "fgm-0.002": "fgm, moved by 0.002",
    "fgm-0.01": "fgm, moved by 0.01",
}


def adversarial() -> str:
    found = results("adversarial")
    lines = [
        f"| training | step | {' | '.join(ATTACKS.values())} |",
        f"|---|---|{'---|' * len(ATTACKS)}",
    ]
    for how, shown in TRAINED.items():
        runs = [r for seed in SEEDS if (r := found.get(f"sst2-{how}-{seed}")) is not None]
        cells = [spread([100 * run[key] for run in runs]) for key in ATTACKS]
        seconds = [run["step_seconds"] for run in runs]
        step = f"{1e3 * statistics.median(seconds):.0f} ms" if runs else "missing"
        lines.append(f"| {shown} | {step} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    actions = {
        "collect": collect,
        "scores": scores,
        "methods": methods,
        "adversarial": adversarial,
    }
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    print(actions[sys.argv[1]]())
