"""The quickstart's model with eight experts of half its MLP's size, two for each token.

    gpt-jax train configs/experts_cpu.py

2,112,640 parameters, of which 935,040 compute one token (the quickstart's model has 1,050,752).
Hardware: a CPU with two cores. On devices: --mesh.expert 8 puts each expert on one of its own.
"""

import dataclasses

from gpt_jax.config import Config
from gpt_jax.overrides import load

QUICKSTART = "quickstart.py"


def get_config() -> Config:
    from pathlib import Path

    config = load(Path(__file__).with_name(QUICKSTART))
    model = dataclasses.replace(config.model, n_experts=8, n_experts_per_token=2, ffn_size=256)
    return dataclasses.replace(config, name="experts_cpu", model=model)
