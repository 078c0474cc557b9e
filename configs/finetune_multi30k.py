"""English to German on Multi30k: supervised fine-tuning on pairs, the loss on the German alone.

python experiments/finetune/prepare.py SHARED_DATA finetune_data
gpt-jax finetune configs/finetune_multi30k.py --from runs/finetune_base
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe

DATA = "finetune_data/multi30k"


def get_config(base: Config) -> Config:
    task = TaskConfig(
        name="respond",
        train=f"{DATA}/train.jsonl",
        validation=f"{DATA}/validation.jsonl",
        test=f"{DATA}/test.jsonl",
        pack=True,
        epochs=6,
        warmup=0.05,
        validations=1,
    )
    return gpt1_recipe(base, "finetune_multi30k", task, optimizer__learning_rate=2e-3)
