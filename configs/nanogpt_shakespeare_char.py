"""nanoGPT's character model of Shakespeare for a GPU, 10,745,088 parameters.

    gpt-jax train configs/nanogpt_shakespeare_char.py --data.path tinyshakespeare.txt

Hardware: a GPU.
Time: 81,920,000 tokens, 5,000 steps; nanoGPT's README says about 3 minutes on an A100.
Loss: 1.4697 nats per character, the best validation loss in nanoGPT's README, an estimate from
random samples of the validation split. The model overfits later on, so the best checkpoint is
kept.

The corpus is char-rnn's tinyshakespeare, input.txt of 1,115,394 characters; the last tenth is held
out, and scored in full. Recipe: nanoGPT's config/train_shakespeare_char.py; what is not given
there is train.py's default (no biases, exact GELU, weight decay 0.1 on all but gains).
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

STEP = 64 * 256  # tokens


def get_config() -> Config:
    return Config(
        name="nanogpt_shakespeare_char",
        model=ModelConfig(
            vocab_size=65,
            seq_len=256,
            n_layers=6,
            d_model=384,
            n_heads=6,
            bias=False,
            activation="gelu",
            dropout_embedding=0.2,
            dropout_residual=0.2,
            dropout_attention=0.2,
        ),
        data=DataConfig(
            source="text",
            path="data/tinyshakespeare.txt",
            tokenizer="char",
            validation="tail",
            validation_fraction=0.1,
        ),
        train=TrainConfig(tokens=5_000 * STEP, batch_sequences=64),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=1e-3,
            b1=0.9,
            b2=0.99,
            weight_decay=0.1,
            decay="no_bias_or_gain",
            clip_norm=1.0,
        ),
        schedule=ScheduleConfig(
            name="cosine",
            warmup_tokens=100 * STEP,
            final_fraction=0.1,
        ),
        evaluate=EvaluateConfig(every_tokens=250 * STEP, sample_prompt="\n", sample_tokens=300),
        checkpoint=CheckpointConfig(every_tokens=250 * STEP, keep_best=1),
    )
