"""nanoGPT's character model of Shakespeare for a CPU, 804,096 parameters.

    gpt-jax train configs/nanogpt_shakespeare_char_cpu.py --data.path tinyshakespeare.txt

Hardware: a CPU.
Time: 1,536,000 tokens, 2,000 steps; two minutes on two cores (nanoGPT's README: about 3 minutes).
Loss: 1.908 nats per character over the whole validation split, the mean of three seeds (1.906 to
1.909): experiments/nanogpt. A model of nanoGPT's own code has 1.898 there; its README's 1.88 is an
estimate from random samples of that split.

The corpus is char-rnn's tinyshakespeare, input.txt of 1,115,394 characters; the last tenth is held
out, and scored in full. Recipe: nanoGPT's README and config/train_shakespeare_char.py; what is not
given there is train.py's default (no biases, exact GELU, weight decay 0.1 on all but gains).
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

STEP = 12 * 64  # tokens


def get_config() -> Config:
    return Config(
        name="nanogpt_shakespeare_char_cpu",
        model=ModelConfig(
            vocab_size=65,
            seq_len=64,
            n_layers=4,
            d_model=128,
            n_heads=4,
            bias=False,
            activation="gelu",
        ),
        data=DataConfig(
            source="text",
            path="data/tinyshakespeare.txt",
            tokenizer="char",
            validation="tail",
            validation_fraction=0.1,
        ),
        train=TrainConfig(tokens=2_000 * STEP, batch_sequences=12),
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
