"""Does a sentence answer a question? QNLI of GLUE (Wang et al. 2018), by GPT-1's recipe.

    python experiments/gpt1/prepare.py qnli GLUE/QNLI gpt1_data
    gpt-jax finetune configs/gpt1_qnli.py --from runs/gpt1

GPT-1's table 2: accuracy 88.1.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="entail")
    return gpt1_recipe(base, "gpt1_qnli", in_folder("gpt1_data/qnli", task))
