"""Does a sentence entail a science question's answer? SciTail (Khot et al. 2018), by GPT-1's
recipe.

    python experiments/gpt1/prepare.py scitail SciTailV1.1/tsv_format gpt1_data
    gpt-jax finetune configs/gpt1_scitail.py --from runs/gpt1

GPT-1's table 2: accuracy 88.3.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="entail")
    return gpt1_recipe(base, "gpt1_scitail", in_folder("gpt1_data/scitail", task))
