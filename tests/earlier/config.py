"""A tiny run that commit 6ead119 began: dropout, a moving average and a ramp have state."""

from gpt_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        name="earlier",
        model=ModelConfig(
            vocab_size=257,
            seq_len=16,
            n_layers=2,
            d_model=16,
            n_heads=2,
            norm="rmsnorm",
            position="rotary",
            bias=False,
            dropout_residual=0.1,
        ),
        data=DataConfig(
            source="text",
            path="tests/earlier/corpus.txt",
            tokenizer="byte",
            validation="tail",
            validation_fraction=0.1,
        ),
        train=TrainConfig(tokens=40 * 4 * 16, batch_sequences=4),
        optimizer=OptimizerConfig(learning_rate=0.03, ema_decay=0.9),
        evaluate=EvaluateConfig(every_tokens=1280, max_sequences=8, batch_sequences=8),
        checkpoint=CheckpointConfig(every_tokens=1280, keep_best=1),
        compute=ComputeConfig(dtype="float32", steps_per_dispatch=1),
    )
