"""One ladder of small GPTs, from 4 thousand to a million parameters, behind the papers' folders.

gpt-jax sweep plan experiments/ladder/sweep.py --measure
gpt-jax sweep run experiments/ladder/sweep.py
gpt-jax sweep report experiments/ladder/sweep.py

Bytes of the Python standard library's own sources. Each size is one warmup-stable trunk, from which
a cooldown is branched off at each compute budget: many points (N, D) for little more than the
longest runs. Budgets are half a decade apart, a quarter up to 3e10, and count all products,
attention's included (`flops`, exact). The last branch, the dearest run, is what experiments/gpt4
predicts from runs of at most a thousandth of its compute.
"""

import dataclasses
from pathlib import Path

from gpt_jax.config import Config, ScheduleConfig, python_file
from gpt_jax.sweep.branches import wsd_branches
from gpt_jax.sweep.budget import flops_budgets

RECIPE = python_file.execute(
    Path(__file__).resolve().parent.parent / "cpu_scaling" / "sweep.py", "sweep file"
).BASE
"""The model, optimizer and corpus of experiments/cpu_scaling."""
BASE = dataclasses.replace(RECIPE, schedule=ScheduleConfig())
BUDGETS = (1e9, 1.8e9, 3e9, 5.6e9, 1e10, 1.8e10, 3e10, 1e11, 3e11, 1e12, 3e12, 1e13, 3e13)
LADDER = {
    # width: (layers, sequences a batch, lowest budget, highest budget)
    8: (2, 4, 1e9, 1e11),
    16: (2, 4, 3e9, 3e11),
    24: (2, 4, 1e10, 1e12),
    32: (2, 8, 3e10, 3e12),
    40: (3, 8, 1e11, 3e12),
    56: (3, 16, 3e11, 1e13),
    64: (4, 16, 1e12, 1e13),
    128: (5, 16, 3e12, 1e13),
    80: (4, 16, 1e12, 3e13),
}
"""From small to large, but for the size of the run that is to be predicted: it comes last."""
WARMUP_STEPS = 10


def learning_rate(width: int, batch_sequences: int) -> float:
    """The peak rate: a power law through the best of a few trial runs (README.md)."""
    return round(0.03 * (24 / width) ** 0.65 * (batch_sequences / 16) ** 0.5, 4)


def shapes() -> list[dict]:
    return [
        {
            "model.n_layers": n_layers,
            "model.d_model": width,
            "model.n_heads": width // 8,
            "train.batch_sequences": batch,
            "optimizer.learning_rate": learning_rate(width, batch),
        }
        for width, (n_layers, batch, _, _) in LADDER.items()
    ]


def budgets(point) -> list[dict]:
    """Those of a size, around its optimum and far beyond."""
    *_, low, high = LADDER[point["model.d_model"]]
    return flops_budgets(budget for budget in BUDGETS if low <= budget <= high)


def warmup(config: Config) -> dict:
    """As many tokens for short branches as for long ones, which share a trunk."""
    batch = config.train.batch_sequences * config.model.seq_len
    return {"schedule.warmup_tokens": WARMUP_STEPS * batch}


def get_sweep():
    cells = wsd_branches(BASE, shapes(), budgets, derive=warmup)
    order = list(LADDER)
    return sorted(cells, key=lambda cell: order.index(cell.varied["model.d_model"]))
