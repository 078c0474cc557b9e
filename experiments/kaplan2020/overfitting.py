"""What does a small data set cost, by size? Kaplan et al. 2020, section 4.3 and figure 9.

gpt-jax sweep run experiments/kaplan2020/overfitting.py
gpt-jax sweep report experiments/kaplan2020/overfitting.py
grep -e ^run, -e ,final, runs/overfitting/report/runs.csv > experiments/kaplan2020/overfitting.csv
python experiments/kaplan2020/repeated.py

Three sizes on 16 thousand to a million bytes of the ladder's corpus, again and again, and on text
that does not end. As in the paper training stops where the validation loss was the least, and the
rate does not decay; here a moving average of the parameters is validated in the place of a decay.
"""

import dataclasses

from base import ladder

from gpt_jax.config import Config
from gpt_jax.sweep.grid import product, values
from gpt_jax.sweep.trial import make_trials

WIDTHS = (16, 32, 64)
UNIQUE_TOKENS = (16_384, 65_536, 262_144, 1_048_576, None)
MOST_TOKENS, MOST_EPOCHS = 10_000_000, 60
"""A run ends at the first of them: long after the least validation loss, or on fresh text."""
VALIDATIONS = 60


def get_sweep():
    ours = ladder()
    base = dataclasses.replace(
        ours.BASE,
        optimizer=dataclasses.replace(ours.BASE.optimizer, ema_decay=0.99),
        schedule=dataclasses.replace(ours.BASE.schedule, name="constant"),
        evaluate=dataclasses.replace(ours.BASE.evaluate, max_sequences=512),
    )
    shapes = [shape for shape in ours.shapes() if shape["model.d_model"] in WIDTHS]

    def derive(config: Config) -> dict:
        unique = config.data.unique_tokens
        tokens = MOST_TOKENS if unique is None else min(MOST_TOKENS, MOST_EPOCHS * unique)
        return {
            "train.tokens": tokens,
            "evaluate.every_tokens": tokens // VALIDATIONS,
            **ours.warmup(config),
        }

    grid = product(shapes, values("data.unique_tokens", UNIQUE_TOKENS))
    return make_trials(base, grid, derive=derive)
