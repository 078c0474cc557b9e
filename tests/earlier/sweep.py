"""A tiny sweep that commit 6ead119 half finished."""

from pathlib import Path

from gpt_jax.config import overrides
from gpt_jax.sweep.grid import product, values
from gpt_jax.sweep.trial import make_trials

BASE = overrides.load(Path(__file__).with_name("config.py"), {})


def get_sweep():
    rates = values("optimizer.learning_rate", [0.01, 0.03])
    return make_trials(BASE, product(rates, values("seed", [0, 1])))
