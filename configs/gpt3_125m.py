"""GPT-3 Small, 125M parameters
(Brown et al. 2020, Language Models are Few-Shot Learners: section 2, appendix B, Tables 2.1, D.1).

    gpt-jax train configs/gpt3_125m.py

Hardware: 16 TPU v5p chips.
State: 2.00 GB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 18.5 tpu_v5p chip-days at 40% MFU, 1.2 days on 16: 2.93e20 FLOPs (convention
`palm`) / (459e12 FLOP/s x 0.4 x 86,400 s). Not run by us.
Loss: only curves are published. The frontier of Figure 3.1, 2.57 C^-0.048, is at 2.50 nats per
token of the authors' validation text for this run's C = 1.77 PF-days (convention `kaplan`); a
model that is trained past the optimum ends above the frontier.

Not published, and assumed: a batch of "0.5M" tokens is 256 sequences of 2048 (524,288 tokens); the
batch ramp takes 4 of the "4 to 12 billion" tokens; the bands are 256 tokens wide and every second
layer is banded, as in GPT-Neo; no dropout; weight decay leaves out biases and gains, as in GPT-1.
Padding the vocabulary to a multiple of 128 changes no result.

The corpus was never released: the paths stand for its five parts, and the weights are those of
Table 2.2. With shards of your own: --data.source shards --data.path DIR --data.mixture []
"""

from gpt_jax.config import (
    CheckpointConfig,
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
        name="gpt3_125m",
        model=ModelConfig(
            vocab_size=50257,
            vocab_multiple=128,
            seq_len=2048,
            n_layers=12,
            d_model=768,
            n_heads=12,
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
            batch_sequences=256,
            ramp_from_sequences=16,  # 32k tokens
            ramp_tokens=4_000_000_000,
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=6.0e-4,
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
        evaluate=EvaluateConfig(every_tokens=2_500_000_000, max_sequences=1024),
        checkpoint=CheckpointConfig(every_tokens=2_500_000_000),
    )
