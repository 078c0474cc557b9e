"""Summed losses against a plain numpy form."""

import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.losses import LossSums, cross_entropy_sums


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    logits = random.normal(0, 5, (4, 6, 11)).astype(np.float32)
    targets = random.integers(0, 11, (4, 6))
    weights = (random.random((4, 6)) < 0.7).astype(np.float32)
    return logits, targets, weights


@pytest.mark.smoke
def test_sums_are_numpys(batch):
    logits, targets, weights = batch
    normaliser = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    sums = cross_entropy_sums(jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights))
    expected = (weights * (normaliser - chosen)).sum(), (weights * normaliser**2).sum()
    np.testing.assert_allclose(sums[:2], expected, rtol=1e-6)
    assert sums.weight == weights.sum()


def test_sums_of_parts_add_up(batch):
    whole = cross_entropy_sums(*map(jnp.asarray, batch))
    parts = [cross_entropy_sums(*(jnp.asarray(x[i::2]) for x in batch)) for i in range(2)]
    added = LossSums(*map(sum, zip(*parts, strict=True)))
    np.testing.assert_allclose(added, whole, rtol=1e-6)
    assert parts[0].weight > 0
    assert parts[1].weight > 0


def test_ids_that_may_not_occur_change_nothing(batch):
    logits, targets, weights = batch
    padded = np.concatenate([logits, np.full((4, 6, 5), -1e30, np.float32)], axis=-1)
    rest = (jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose(
        cross_entropy_sums(jnp.asarray(padded), *rest),
        cross_entropy_sums(jnp.asarray(logits), *rest),
        rtol=1e-6,
    )


def test_bfloat16_logits_are_summed_in_float32(batch):
    logits, targets, weights = batch
    rounded = jnp.asarray(logits, jnp.bfloat16)
    rest = (jnp.asarray(targets), jnp.asarray(weights))
    sums = cross_entropy_sums(rounded, *rest)
    assert {x.dtype.name for x in sums} == {"float32"}
    expected = cross_entropy_sums(rounded.astype(jnp.float32), *rest)
    np.testing.assert_array_equal(sums, expected)
