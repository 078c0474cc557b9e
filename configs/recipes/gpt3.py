"""The recipe that the eight GPT-3s share (Brown et al. 2020, section 2, appendix B, Table 2.1)."""

from typing import Literal

from gpt_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    MixtureComponent,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)


def gpt3(
    name: str,
    *,
    n_layers: int,
    d_model: int,
    n_heads: int,
    batch_sequences: int,
    ramp_tokens: int,
    learning_rate: float,
    remat: Literal["none", "full"] = "full",
) -> Config:
    """The config of one size; its file says what was published of it and what is assumed.

    batch_sequences: of 2,048 tokens each, after the ramp. ramp_tokens: training tokens over which
    the batch grows to that.
    """
    return Config(
        name=name,
        model=ModelConfig(
            vocab_size=50257,
            vocab_multiple=128,
            seq_len=2048,
            n_layers=n_layers,
            d_model=d_model,
            n_heads=n_heads,
            layer_pattern=("dense", "banded"),
            window=256,
        ),
        data=DataConfig(
            source="mixture",
            mixture=(
                MixtureComponent(path="data/common_crawl", weight=60),
                MixtureComponent(path="data/webtext2", weight=22),
                MixtureComponent(path="data/books1", weight=8),
                MixtureComponent(path="data/books2", weight=8),
                MixtureComponent(path="data/wikipedia", weight=3),
            ),
            tokenizer="gpt2",
        ),
        train=TrainConfig(
            tokens=300_000_000_000,
            batch_sequences=batch_sequences,
            ramp_from_sequences=16,  # 32k tokens
            ramp_tokens=ramp_tokens,
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=learning_rate,
            b1=0.9,
            b2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
            decay="no_bias_or_gain",
            clip_norm=1.0,
        ),
        schedule=ScheduleConfig(
            name="cosine",
            warmup_tokens=375_000_000,
            decay_tokens=260_000_000_000,  # constant for the last 40 billion
            final_fraction=0.1,
        ),
        compute=ComputeConfig(remat=remat),
        evaluate=EvaluateConfig(every_tokens=2_500_000_000, max_sequences=1024),
        checkpoint=CheckpointConfig(every_tokens=2_500_000_000),
    )
