"""A small GPT that writes Python, trained in about two minutes on a laptop.

    gpt-jax train configs/quickstart.py
"""

from gpt_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        name="quickstart",
        model=ModelConfig(
            vocab_size=2048,
            seq_len=128,
            n_layers=4,
            d_model=128,
            n_heads=4,
            bias=False,
            norm="rmsnorm",
            activation="relu_squared",
            position="rotary",
            qk_norm=True,
        ),
        data=DataConfig(source="stdlib", tokenizer="bpe:2048"),
        train=TrainConfig(tokens=2_000_000, batch_sequences=16),
        optimizer=OptimizerConfig(name="muon", learning_rate=0.01, weight_decay=0.01),
        schedule=ScheduleConfig(name="wsd", warmup_tokens=50_000, cooldown_tokens=800_000),
        evaluate=EvaluateConfig(
            every_tokens=500_000, max_sequences=64, sample_prompt="def ", sample_tokens=200
        ),
        checkpoint=CheckpointConfig(every_tokens=500_000),
    )
