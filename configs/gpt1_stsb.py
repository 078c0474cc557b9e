"""How alike are two sentences, from 0 to 5? STS-B (Cer et al. 2017), as GLUE distributes it, by
GPT-1's recipe.

    python experiments/gpt1/prepare.py stsb GLUE/STS-B gpt1_data
    gpt-jax finetune configs/gpt1_stsb.py --from runs/gpt1

GPT-1's table 4: Pearson's correlation 82.0.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="regress", fields=("first", "second"))
    return gpt1_recipe(base, "gpt1_stsb", in_folder("gpt1_data/stsb", task))
