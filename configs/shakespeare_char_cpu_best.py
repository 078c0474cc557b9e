"""nanoGPT's CPU budget, spent better: 804,096 parameters, 1,536,000 tokens, blocks of 64.

gpt-jax train configs/shakespeare_char_cpu_best.py --data.path tinyshakespeare.txt

Hardware: a CPU with two cores.
Time: 2,000 steps; two and a half to three minutes on two cores.
Loss: 1.581 nats per character over the whole validation split, the mean of three seeds (1.575 to
1.590); nanoGPT's recipe reaches 1.908 here: experiments/nanogpt.

What differs from nanoGPT's recipe: Muon, a linear decay to zero, rotary positions, squared ReLU,
RMSNorm, weights of 1 / sqrt(inputs) with zero residual projections. The MLP's 520 hidden units make
up for the position embeddings to the unit. Peak rates of 0.005, 0.01 and 0.02 gave 1.578, 1.602 and
1.706 with seed 0.
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

TOKENS = 2_000 * 12 * 64


def get_config() -> Config:
    return Config(
        name="shakespeare_char_cpu_best",
        model=ModelConfig(
            vocab_size=65,
            seq_len=64,
            n_layers=4,
            d_model=128,
            n_heads=4,
            ffn_size=520,
            bias=False,
            norm="rmsnorm",
            activation="relu_squared",
            position="rotary",
            init_matrices="fan_in",
            init_residual="zero",
        ),
        data=DataConfig(
            source="text",
            path="data/tinyshakespeare.txt",
            tokenizer="char",
            validation="tail",
            validation_fraction=0.1,
        ),
        train=TrainConfig(tokens=TOKENS, batch_sequences=12),
        optimizer=OptimizerConfig(
            name="muon", learning_rate=5e-3, b1=0.95, b2=0.99, weight_decay=0.05
        ),
        schedule=ScheduleConfig(name="linear", warmup_tokens=TOKENS // 50),
        evaluate=EvaluateConfig(
            every_tokens=TOKENS // 8, batch_sequences=67, sample_prompt="\n", sample_tokens=300
        ),
        checkpoint=CheckpointConfig(every_tokens=TOKENS // 8),
    )
