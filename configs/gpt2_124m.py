"""GPT-2, the smallest model ("117M" in the paper), 124,439,808 parameters
(Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.3).

    gpt-jax train configs/gpt2_124m.py --compute.microbatches 8

Hardware: 8 A100 of 40 GB.
State: 1.99 GB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 23.9 a100_40gb chip-days at 40% MFU, 3.0 days on 8: 2.58e20 FLOPs (convention
`palm`) / (312e12 FLOP/s x 0.4 x 86,400 s). Not run by us. nanoGPT's README: about 4 days on the
same hardware.
Loss: the released weights score 3.12 nats per token on OpenWebText's validation text (nanoGPT's
README), not having been trained on it. Trained on it, nanoGPT's published reproduction with this
recipe ends at about 2.85.

Published: shape, initialisation, 512 sequences of 1024 tokens. Not published: optimizer, learning
rate, schedule, length, dropout. These are nanoGPT's (config/train_gpt2.py): AdamW, 6e-4 after
2,000 steps of warmup, cosine to a tenth, 300B tokens, weight decay 0.1 on what is not a bias or
gain, no dropout.

WebText was never released: OpenWebText stands in for it. --model.vocab_multiple 128 is faster on a
GPU or TPU and changes no result.
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
        name="gpt2_124m",
        model=ModelConfig(
            vocab_size=50257,
            seq_len=1024,
            n_layers=12,
            d_model=768,
            n_heads=12,
        ),
        data=DataConfig(
            source="huggingface",
            path="Skylion007/openwebtext",
            tokenizer="gpt2",
            validation_fraction=0.0005,
        ),
        train=TrainConfig(tokens=300_000_000_000, batch_sequences=512),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=6e-4,
            b1=0.9,
            b2=0.95,
            weight_decay=0.1,
            decay="no_bias_or_gain",
            clip_norm=1.0,
        ),
        schedule=ScheduleConfig(
            name="cosine",
            warmup_tokens=2_000 * 512 * 1024,
            final_fraction=0.1,
        ),
        evaluate=EvaluateConfig(every_tokens=1_000 * 512 * 1024, max_sequences=1024),
        checkpoint=CheckpointConfig(every_tokens=1_000 * 512 * 1024),
    )
