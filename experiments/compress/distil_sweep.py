"""A model of two layers of 64 that learns the text alone, or what the quickstart's model predicts.

    gpt-jax train configs/quickstart.py
    gpt-jax sweep run experiments/compress/distil_sweep.py --workdir runs/distil
    python experiments/compress/distil_table.py runs/distil

The same tokens, steps and rates for all: the quickstart's.
"""

import dataclasses

from gpt_jax.run import RunDirectory
from gpt_jax.sweep.grid import chain, product, seeds, values
from gpt_jax.sweep.trial import make_trials

TEACHER = "runs/quickstart"
SMALLER = {"model.n_layers": 2, "model.d_model": 64, "model.n_heads": 2}


def get_sweep():
    config = dataclasses.replace(RunDirectory(TEACHER).require_config(), name="student")
    taught = product(
        values("distill.teacher", [TEACHER]),
        values("distill.weight", [0.5, 1.0]),
        values("distill.temperature", [1.0, 2.0]),
    )
    return make_trials(config, product([SMALLER], chain([{}], taught), seeds(3)))
