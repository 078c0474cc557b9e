"""A model of two layers of 64 that learns the text alone, or what the quickstart's model predicts.

    gpt-jax train configs/quickstart.py
    gpt-jax sweep run experiments/compress/distil_sweep.py --workdir runs/distil
    python experiments/compress/distil_table.py runs/distil

The same tokens, steps and rates for all: the quickstart's.
"""

from pathlib import Path

from gpt_jax.config import overrides
from gpt_jax.sweep.grid import chain, product, seeds
from gpt_jax.sweep.trial import make_trials

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "quickstart.py"
TEACHER = "runs/quickstart"
"""Of CONFIG, as `gpt-jax train` names it."""
SMALLER = {"model.n_layers": 2, "model.d_model": 64, "model.n_heads": 2}


def get_sweep():
    config = overrides.load(CONFIG, {"name": "student"})
    ways = [(0.5, 1.0), (0.5, 2.0), (1.0, 1.0)]
    taught = [
        {"distill.teacher": TEACHER, "distill.weight": weight, "distill.temperature": temperature}
        for weight, temperature in ways
    ]
    return make_trials(config, product([SMALLER], chain([{}], taught), seeds(3)))
