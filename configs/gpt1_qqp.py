"""Do two questions ask the same? QQP (Quora 2017), as GLUE distributes it, by GPT-1's recipe.

    python experiments/gpt1/prepare.py qqp GLUE/QQP gpt1_data
    gpt-jax finetune configs/gpt1_qqp.py --from runs/gpt1

GPT-1's table 4: F1 70.3, of duplicates: the second class.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="similarity", labels=("different", "duplicate"), metric="f1")
    return gpt1_recipe(base, "gpt1_qqp", in_folder("gpt1_data/qqp", task))
