"""Captions of digits: an image encoder and a small GPT trained together, from pixels to text.

    python experiments/finetune/prepare.py SHARED_DATA finetune_data
    gpt-jax train configs/mnist_captions.py

48 x 48 pixels, a digit in one of the corners, become 36 embeddings before the text "a seven, top
left". Hardware: a CPU with two cores.
"""

from gpt_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TaskConfig,
    TrainConfig,
)

DATA = "finetune_data/mnist"


def get_config() -> Config:
    return Config(
        name="mnist_captions",
        model=ModelConfig(
            vocab_size=257,
            seq_len=64,
            n_layers=2,
            d_model=128,
            n_heads=4,
            bias=False,
            norm="rmsnorm",
            position="rotary",
            dropout_residual=0.1,
        ),
        data=DataConfig(tokenizer="byte"),
        task=TaskConfig(
            name="respond",
            train=f"{DATA}/train.jsonl",
            validation=f"{DATA}/validation.jsonl",
            test=f"{DATA}/test.jsonl",
            images=f"{DATA}/images.npy",
            image_encoder="convolution",
            epochs=6,
            warmup=0.05,
            validations=1,
        ),
        train=TrainConfig(batch_sequences=64),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.05),
        schedule=ScheduleConfig(name="cosine"),
        checkpoint=CheckpointConfig(keep_latest=1, keep_best=1),
    )
