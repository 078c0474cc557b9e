"""Which answer to a question on a text is right? RACE (Lai et al. 2017), by GPT-1's recipe.

    python experiments/gpt1/prepare.py race RACE gpt1_data
    gpt-jax finetune configs/gpt1_race.py --from runs/gpt1

GPT-1's table 3: accuracy 62.9 (middle school), 57.4 (high school), 59.0 (both); of this run by
experiments/gpt1/scores.py, its test holds both.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="choose", fields=("article", "question", "options"))
    return gpt1_recipe(base, "gpt1_race", in_folder("gpt1_data/race", task))
