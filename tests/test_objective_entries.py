"""Pretraining objectives as entries."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpt_jax.config import Config, overrides
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.objectives.pretraining import LanguageModel
from gpt_jax.steps.program import make_objective

TINY = {
    "model.vocab_size": 11,
    "model.vocab_multiple": 4,
    "model.seq_len": 6,
    "model.n_layers": 1,
    "model.d_model": 8,
    "model.n_heads": 1,
    "model.init_std": 0.5,
}


def test_label_smoothing_is_the_cross_entropy_of_smoothed_targets():
    smoothing = {"train.objective": "label_smoothing", "train.options.share": 0.3}
    config = overrides.override(Config(), TINY | smoothing)
    model = make_gpt(config.model)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 6))
    weights = np.ones((2, 6), np.float32)
    weights[0, 4:] = 0
    batch = Batch(tokens, np.roll(tokens, -1, axis=1), weights, None)

    @jax.jit
    def both(key):
        params = model.init(key)
        ours, sums = make_objective(config, model).loss(params, batch, None, {})
        targets = optax.smooth_labels(jax.nn.one_hot(batch.targets_BT, 11), 0.3)
        logits = model.apply(params, tokens)[..., :11]
        theirs = jnp.sum(weights * optax.softmax_cross_entropy(logits, targets))
        return ours, theirs, sums.cross_entropy

    ours, theirs, plain = both(jax.random.key(0))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-4)
    assert abs(float(ours - plain)) > 0.01


def test_the_default_is_the_next_token():
    config = overrides.override(Config(), TINY)
    assert isinstance(make_objective(config, make_gpt(config.model)), LanguageModel)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"train.objective": "next"},
            r"train\.objective = next; allowed: label_smoothing\|",
        ),
        ({"train.options.share": 0.1}, r"options\.share is unknown: next_token has no options"),
        (
            {"train.objective": "label_smoothing", "adapt.method": "bitfit"},
            "label_smoothing is for pretraining",
        ),
    ],
)
def test_mistakes_are_one_line(changes, said):
    with pytest.raises(ValueError, match=said):
        overrides.override(Config(), changes)
