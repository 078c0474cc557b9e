"""Do two sentences say the same? MRPC (Dolan and Brockett 2005), as GLUE distributes it, by
GPT-1's recipe.

    python experiments/gpt1/prepare.py mrpc GLUE/MRPC gpt1_data
    gpt-jax finetune configs/gpt1_mrpc.py --from runs/gpt1

GPT-1's table 4: F1 82.3, of paraphrases: the second class.
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe, in_folder


def get_config(base: Config) -> Config:
    task = TaskConfig(name="similarity", labels=("different", "paraphrase"), metric="f1")
    return gpt1_recipe(base, "gpt1_mrpc", in_folder("gpt1_data/mrpc", task))
