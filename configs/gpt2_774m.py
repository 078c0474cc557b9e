"""GPT-2 large ("762M" in the paper), 774,030,080 parameters
(Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.3).

    gpt-jax train configs/gpt2_774m.py

Hardware: 16 TPU v5p chips.
State: 12.4 GB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 98.5 tpu_v5p chip-days at 40% MFU, 6.2 days on 16: 1.56e21 FLOPs (convention
`palm`) / (459e12 FLOP/s x 0.4 x 86,400 s). Not run by us.
Loss: the released weights score 2.67 nats per token on OpenWebText's validation text (nanoGPT's
README), not having been trained on it. Trained on it, a model ends lower; how much is not
published.

Published: shape, initialisation, 512 sequences of 1024 tokens. Not published: optimizer, learning
rate, schedule, length, dropout. These are nanoGPT's for the smallest model: AdamW, 2,000 steps of
warmup, cosine to a tenth, 300B tokens, weight decay 0.1 on what is not a bias or gain, no dropout;
but the learning rate is GPT-3's for the nearest size (its Table 2.1), 2.5e-4.

WebText was never released: OpenWebText stands in for it. --model.vocab_multiple 128 is faster on a
GPU or TPU and changes no result.
"""

from gpt_jax.config import (
    CheckpointConfig,
    ComputeConfig,
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
        name="gpt2_774m",
        model=ModelConfig(
            vocab_size=50257,
            seq_len=1024,
            n_layers=36,
            d_model=1280,
            n_heads=20,
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
            learning_rate=2.5e-4,
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
        compute=ComputeConfig(remat="full"),
        evaluate=EvaluateConfig(every_tokens=1_000 * 512 * 1024, max_sequences=1024),
        checkpoint=CheckpointConfig(every_tokens=1_000 * 512 * 1024),
    )
