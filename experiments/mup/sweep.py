"""Does the best learning rate of a narrow model hold for a wide one? Under muP, not under standard.

gpt-jax sweep run experiments/mup/sweep.py --launcher packed
gpt-jax sweep report experiments/mup/sweep.py
python experiments/mup/make_figure.py runs/mup

Four widths by eight learning rates under both parametrizations: two layers, heads of 16, bytes of
the Python standard library's sources. muP's base width is the widest, where both are the same
model: what is tuned on the narrow ones should hold there.
"""

from gpt_jax.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ScheduleConfig,
    TrainConfig,
)
from gpt_jax.sweep.grid import product, values
from gpt_jax.sweep.ladder import by_width
from gpt_jax.sweep.trial import make_trials

BASE_WIDTH, WIDTHS = 256, (32, 64, 128, 256)
RATES = [2.0**power for power in range(-11, -3)]
STEPS, BATCH, SEQ_LEN = 200, 16, 64

BASE = Config(
    model=ModelConfig(
        vocab_size=257, seq_len=SEQ_LEN, position="rotary", norm="rmsnorm", bias=False,
        init_matrices="fan_in",
    ),
    data=DataConfig(source="stdlib", tokenizer="byte"),
    train=TrainConfig(tokens=STEPS * BATCH * SEQ_LEN, batch_sequences=BATCH),
    schedule=ScheduleConfig(name="linear", warmup_tokens=STEPS * BATCH * SEQ_LEN // 10),
    evaluate=EvaluateConfig(batch_sequences=64),
)  # fmt: skip
PARAMETRIZATIONS = [
    {"model.parametrization": "standard"},
    {"model.parametrization": "mup", "model.base_d_model": BASE_WIDTH},
]


def get_sweep():
    widths = by_width(WIDTHS, n_layers=2, head_size=16)
    return make_trials(
        BASE, product(PARAMETRIZATIONS, widths, values("optimizer.learning_rate", RATES))
    )
