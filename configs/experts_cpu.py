"""The quickstart's model with eight experts of half its MLP's size, two for each token.

    gpt-jax train configs/experts_cpu.py

2,626,688 parameters, of which 1,053,824 compute one token: the quickstart's 1,049,728 and routers.
Hardware: a CPU with two cores. On eight devices: --mesh.expert 8.
"""

import dataclasses
from pathlib import Path

from gpt_jax.config import Config
from gpt_jax.config.overrides import load


def get_config() -> Config:
    config = load(Path(__file__).with_name("quickstart.py"))
    model = dataclasses.replace(config.model, n_experts=8, n_experts_per_token=2, ffn_size=256)
    return dataclasses.replace(config, name="experts_cpu", model=model)
