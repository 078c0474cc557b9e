"""Is a hypothesis entailed, contradicted, or neither? MNLI (Williams et al. 2018), as GLUE
distributes it, by GPT-1's recipe.

    python experiments/gpt1/prepare.py mnli GLUE/MNLI gpt1_data
    gpt-jax finetune configs/gpt1_mnli.py --from runs/gpt1

GPT-1's table 2: accuracy 82.1 (matched), 81.4 (mismatched); of this run by
experiments/gpt1/scores.py, its test holds both.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="entail")
    return gpt1_recipe(base, "gpt1_mnli", in_folder("gpt1_data/mnli", task))
