"""Which learning rate is best for a small GPT? Eight runs, of about 20 seconds on two cores each.

gpt-jax sweep plan experiments/lr_sweep/sweep.py      # what it will cost
gpt-jax sweep run experiments/lr_sweep/sweep.py       # train what is missing
gpt-jax sweep report experiments/lr_sweep/sweep.py    # the losses side by side
"""

from gpt_jax.config import Config, DataConfig, ModelConfig, ScheduleConfig, TrainConfig
from gpt_jax.sweep.budget import flops_budgets
from gpt_jax.sweep.grid import product, values
from gpt_jax.sweep.trial import make_trials

BASE = Config(
    model=ModelConfig(
        vocab_size=2048, seq_len=128, n_layers=2, d_model=64, n_heads=2, position="rotary"
    ),
    data=DataConfig(source="stdlib", tokenizer="bpe:2048", validation_fraction=0.02),
    train=TrainConfig(batch_sequences=16),
    schedule=ScheduleConfig(name="linear"),
)


def warmup(config: Config) -> dict:
    """Asked for every trial once its training tokens are known: a fiftieth of them."""
    return {"schedule.warmup_tokens": config.train.tokens // 50}


def get_sweep():
    rates = values("optimizer.learning_rate", [0.001 * 2**i for i in range(8)])
    return make_trials(BASE, product(rates, flops_budgets([1.5e12])), derive=warmup)
