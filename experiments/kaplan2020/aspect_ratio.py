"""Does the shape matter at a fixed N? Kaplan et al. 2020, figure 5: hardly.

gpt-jax sweep run experiments/kaplan2020/aspect_ratio.py
gpt-jax sweep report experiments/kaplan2020/aspect_ratio.py

Six shapes of about 25 thousand non-embedding parameters, from one wide layer to fourteen narrow
ones, heads of 4, a million tokens each, on the ladder's corpus with the ladder's recipe.
"""

import dataclasses

from base import ladder

from gpt_jax.sweep.budget import token_budgets
from gpt_jax.sweep.grid import product
from gpt_jax.sweep.ladder import by_aspect_ratio
from gpt_jax.sweep.trial import make_trials

RATIOS = (44, 16, 8, 4, 2, 0.86)
N_NON_EMBEDDING = 24_576
TOKENS = 1_000_000


def get_sweep():
    ours = ladder()
    base = dataclasses.replace(
        ours.BASE,
        train=dataclasses.replace(ours.BASE.train, batch_sequences=8),
        optimizer=dataclasses.replace(ours.BASE.optimizer, learning_rate=ours.learning_rate(32, 8)),
        schedule=dataclasses.replace(ours.BASE.schedule, name="linear"),
    )
    shapes = by_aspect_ratio(base.model, RATIOS, N_NON_EMBEDDING, head_size=4)
    return make_trials(base, product(shapes, token_budgets([TOKENS])), derive=ours.warmup)
