"""Sentiment of sentences from film reviews (SST-2), fine-tuned from any run by GPT-1's recipe.

python experiments/finetune/prepare.py SHARED_DATA finetune_data
gpt-jax finetune configs/finetune_sst2.py --from runs/finetune_base
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe

DATA = "finetune_data/sst2"


def get_config(base: Config) -> Config:
    task = TaskConfig(
        name="classify",
        train=f"{DATA}/train.jsonl",
        validation=f"{DATA}/validation.jsonl",
        test=f"{DATA}/test.jsonl",
        epochs=3,
        warmup=0.002,
        validations=2,
    )
    return gpt1_recipe(base, "finetune_sst2", task, optimizer__learning_rate=5e-4)
