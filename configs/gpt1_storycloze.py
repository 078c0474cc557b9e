"""Which ending does a story have? Story Cloze Test (Mostafazadeh et al. 2017), by GPT-1's
recipe.

    python experiments/gpt1/prepare.py storycloze STORYCLOZE gpt1_data
    gpt-jax finetune configs/gpt1_storycloze.py --from runs/gpt1

GPT-1's table 3: accuracy 86.5.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="choose")
    return gpt1_recipe(base, "gpt1_storycloze", in_folder("gpt1_data/storycloze", task))
