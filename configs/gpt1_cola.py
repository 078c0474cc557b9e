"""Is a sentence grammatical? CoLA (Warstadt et al. 2018), as GLUE distributes it, by GPT-1's
recipe.

    python experiments/gpt1/prepare.py cola GLUE/CoLA gpt1_data
    gpt-jax finetune configs/gpt1_cola.py --from runs/gpt1

GPT-1's table 4: Matthews's correlation 45.4.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="classify", metric="matthews")
    return gpt1_recipe(base, "gpt1_cola", in_folder("gpt1_data/cola", task))
