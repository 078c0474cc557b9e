"""Named entities in noisy text (WNUT-17): a tag a word, each sentence read twice.

python experiments/finetune/prepare.py SHARED_DATA finetune_data
gpt-jax finetune configs/finetune_wnut17.py --from runs/finetune_base
"""

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.recipes import gpt1_recipe

DATA = "finetune_data/wnut17"


def get_config(base: Config) -> Config:
    task = TaskConfig(
        name="tag",
        train=f"{DATA}/train.jsonl",
        validation=f"{DATA}/validation.jsonl",
        test=f"{DATA}/test.jsonl",
        repeat=True,
        epochs=5,
        warmup=0.002,
        validations=2,
    )
    return gpt1_recipe(base, "finetune_wnut17", task, optimizer__learning_rate=5e-4)
