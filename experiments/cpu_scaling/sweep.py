"""An IsoFLOP study for two CPU cores: four budgets by six sizes, and one larger run to predict.

gpt-jax sweep plan experiments/cpu_scaling/sweep.py
gpt-jax sweep run experiments/cpu_scaling/sweep.py --jobs 2
gpt-jax sweep report experiments/cpu_scaling/sweep.py

GPTs of 10 thousand to 600 thousand parameters on the bytes of the Python standard library's own
sources. Sizes slide with the budget, so that each profile has its minimum inside; a budget counts
all products, attention's included (`flops`, exact).
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
from gpt_jax.sweep.budget import flops_budgets
from gpt_jax.sweep.grid import chain, product
from gpt_jax.sweep.trial import make_trials

BASE = Config(
    model=ModelConfig(
        vocab_size=257, seq_len=128, position="rotary", norm="rmsnorm", bias=False,
        activation="relu_squared", init_matrices="fan_in", init_residual="zero",
    ),
    data=DataConfig(source="stdlib", tokenizer="byte", validation_fraction=0.02),
    train=TrainConfig(batch_sequences=16),
    optimizer=OptimizerConfig(name="muon", learning_rate=0.03, b1=0.95, b2=0.98, weight_decay=0.05),
    schedule=ScheduleConfig(name="linear"),
    evaluate=EvaluateConfig(batch_sequences=64),
)  # fmt: skip
SHAPES = [
    {"model.n_layers": n_layers, "model.d_model": width, "model.n_heads": width // 8}
    for n_layers, width in [
        (2, 16), (2, 24), (2, 32), (3, 32), (3, 40), (3, 48), (4, 56), (4, 64), (4, 80), (5, 96),
    ]
]  # fmt: skip
BUDGETS = {4e11: SHAPES[0:6], 1e12: SHAPES[1:7], 2.5e12: SHAPES[2:8], 6e12: SHAPES[3:9]}
HELD_OUT = {1.5e13: [SHAPES[7]]}


def warmup(config: Config) -> dict:
    return {"schedule.warmup_tokens": config.train.tokens // 20}


def get_sweep():
    cells = (BUDGETS | HELD_OUT).items()
    grid = chain(*(product(flops_budgets([budget]), shapes) for budget, shapes in cells))
    return make_trials(BASE, grid, derive=warmup)
