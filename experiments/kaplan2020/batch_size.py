"""How many steps and tokens does a loss take at each batch size? Kaplan et al. 2020, section 5.1.

gpt-jax sweep run experiments/kaplan2020/batch_size.py
python experiments/kaplan2020/critical_batch.py --from runs/batch_size

One model of 20 thousand parameters, batches of 256 to 16,384 tokens, rates by the square root of
the batch, constant after a short warmup: a loss is read off the training curve, on fresh text.
"""

import dataclasses

from base import ladder

from gpt_jax.config import Config
from gpt_jax.sweep.grid import values
from gpt_jax.sweep.trial import make_trials

BATCHES = (2, 4, 8, 16, 32, 64, 128)
WIDTH = 24
LEAST_TOKENS, LEAST_STEPS = 1_000_000, 300
"""A run has so many tokens, and so many steps more: large batches need more tokens."""


def get_sweep():
    ours = ladder()
    model = dataclasses.replace(ours.BASE.model, n_layers=2, d_model=WIDTH, n_heads=WIDTH // 8)
    base = dataclasses.replace(
        ours.BASE,
        model=model,
        schedule=dataclasses.replace(ours.BASE.schedule, name="constant"),
    )

    def derive(config: Config) -> dict:
        batch = config.train.batch_sequences
        return {
            "train.tokens": LEAST_TOKENS + LEAST_STEPS * batch * config.model.seq_len,
            "optimizer.learning_rate": ours.learning_rate(WIDTH, batch),
            **ours.warmup(config),
        }

    return make_trials(base, values("train.batch_sequences", BATCHES), derive=derive)
