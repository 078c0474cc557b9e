"""Is a hypothesis entailed, contradicted, or neither? SNLI (Bowman et al. 2015), by GPT-1's
recipe.

    python experiments/gpt1/prepare.py snli snli_1.0 gpt1_data
    gpt-jax finetune configs/gpt1_snli.py --from runs/gpt1

GPT-1's table 2: accuracy 89.9.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="entail")
    return gpt1_recipe(base, "gpt1_snli", in_folder("gpt1_data/snli", task))
