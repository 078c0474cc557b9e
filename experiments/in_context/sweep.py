"""Small GPTs that learn in context what letters stand for: three sizes, one corpus.

python experiments/in_context/make_data.py runs/in_context/ciphers.jsonl
gpt-jax sweep run experiments/in_context/sweep.py
python experiments/in_context/make_figure.py runs/in_context
"""

from gpt_jax.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from gpt_jax.sweep.budget import token_budgets
from gpt_jax.sweep.grid import product
from gpt_jax.sweep.trial import make_trials

BASE = Config(
    model=ModelConfig(
        vocab_size=257, seq_len=128, position="rotary", norm="rmsnorm", bias=False,
        activation="relu_squared", init_matrices="fan_in", init_residual="zero",
    ),
    data=DataConfig(
        source="jsonl", path="runs/in_context/ciphers.jsonl", tokenizer="byte",
        validation_fraction=0.02,
    ),
    train=TrainConfig(batch_sequences=16),
    optimizer=OptimizerConfig(name="muon", learning_rate=0.01, b1=0.95, b2=0.98, weight_decay=0.05),
    schedule=ScheduleConfig(name="linear"),
    evaluate=EvaluateConfig(batch_sequences=32),
)  # fmt: skip
TOKENS = 8_000_000
SHAPES = [
    {"model.n_layers": n_layers, "model.d_model": width, "model.n_heads": width // 8}
    for n_layers, width in [(3, 16), (3, 32), (3, 64)]
]


def warmup(config: Config) -> dict:
    return {"schedule.warmup_tokens": config.train.tokens // 50}


def get_sweep():
    return make_trials(BASE, product(SHAPES, token_budgets([TOKENS])), derive=warmup)
