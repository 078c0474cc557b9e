"""Chinchilla, 70B parameters
(Hoffmann et al. 2022, Training Compute-Optimal Large Language Models: Table 4, appendix A).

    gpt-jax train configs/chinchilla_70b.py --mesh.fsdp 256 --mesh.tensor 2

Hardware: 512 TPU v5p chips.
State: 1.04 TB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 35,700 tpu_v5p chip-days at 40% MFU, 70 days on 512: 5.66e23 FLOPs (convention
`palm`) / (459e12 FLOP/s x 0.4 x 86,400 s). Not run by us.
Loss: not published in nats per token; the paper's law (equation 10) is at 1.94 for 70 billion
parameters and 1.4 trillion tokens, of its corpus and tokenizer.

What differs: positions are rotary, where the paper has Transformer-XL's relative ones, a further
product in every layer that makes the 64.7 billion parameters counted here 70 (`gpt-jax table
chinchilla-70b`). The batch doubles once, midway, as the paper's.

Not published, and assumed: the warmup, 1,500 steps as Gopher's (Rae et al. 2021, section 3.2); a
batch of "1.5M" tokens is 768 sequences of 2048; Adam's 0.9 and 0.95; gradients clipped at norm 1;
weight decay 0.1, without biases and gains.

The corpus was never released: the paths stand for its six parts, and the weights are those of
Table A1. With shards of your own: --data.source shards --data.path DIR --data.mixture []
"""

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


def get_config() -> Config:
    return Config(
        name="chinchilla_70b",
        model=ModelConfig(
            vocab_size=32_000,
            seq_len=2048,
            n_layers=80,
            d_model=8192,
            n_heads=64,
            norm="rmsnorm",
            position="rotary",
        ),
        data=DataConfig(
            source="mixture",
            mixture=(
                MixtureComponent(path="data/massive_web", weight=45),
                MixtureComponent(path="data/books", weight=30),
                MixtureComponent(path="data/c4", weight=10),
                MixtureComponent(path="data/news", weight=10),
                MixtureComponent(path="data/github", weight=4),
                MixtureComponent(path="data/wikipedia", weight=1),
            ),
        ),
        train=TrainConfig(
            tokens=1_400_000_000_000,
            batch_sequences=1536,
            ramp_from_sequences=768,
            ramp_tokens=700_000_000_000,
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=1e-4,
            b1=0.9,
            b2=0.95,
            weight_decay=0.1,
            decay="no_bias_or_gain",
            clip_norm=1.0,
        ),
        schedule=ScheduleConfig(name="cosine", warmup_tokens=1500 * 768 * 2048, final_fraction=0.1),
        compute=ComputeConfig(remat="full"),
        evaluate=EvaluateConfig(every_tokens=10_000_000_000, max_sequences=1024),
        checkpoint=CheckpointConfig(every_tokens=10_000_000_000),
    )
