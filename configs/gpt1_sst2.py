"""Sentiment of sentences from film reviews: SST-2 (Socher et al. 2013), as GLUE distributes it,
by GPT-1's recipe.

    python experiments/gpt1/prepare.py sst2 GLUE/SST-2 gpt1_data
    gpt-jax finetune configs/gpt1_sst2.py --from runs/gpt1

GPT-1's table 4: accuracy 91.3.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="classify")
    return gpt1_recipe(base, "gpt1_sst2", in_folder("gpt1_data/sst2", task))
