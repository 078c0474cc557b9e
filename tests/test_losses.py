"""Summed losses against a plain numpy form, and in parts against whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import equations

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.cost import blocks
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.objectives import in_parts as parts_of_logits
from gpt_jax.objectives.cross_entropy import cross_entropy_sums
from gpt_jax.objectives.pretraining import LossWeights, batch_loss


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
    added = jax.tree.map(jnp.add, *parts)
    np.testing.assert_allclose(added[:3], whole[:3], rtol=1e-6)
    assert parts[0].weight > 0
    assert parts[1].weight > 0


def test_ids_that_may_not_occur_change_nothing(batch):
    logits, targets, weights = batch
    padded = np.concatenate([logits, np.full((4, 6, 5), -1e30, np.float32)], axis=-1)
    rest = (jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose(
        cross_entropy_sums(jnp.asarray(padded), *rest)[:3],
        cross_entropy_sums(jnp.asarray(logits), *rest)[:3],
        rtol=1e-6,
    )


def test_a_target_is_picked_as_by_its_index_and_its_gradient_scatters_nothing(batch):
    """A gather's gradient is a scatter into whole float32 logits, which XLA does not fuse."""
    logits, targets, weights = batch

    def picked(logits):
        at_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return jnp.sum(weights * (jax.nn.logsumexp(logits, axis=-1) - at_target))

    def ours(logits):
        return cross_entropy_sums(logits, targets, weights, masked=True).cross_entropy

    value, gradient = jax.value_and_grad(ours)(logits)
    expected_value, expected_gradient = jax.value_and_grad(picked)(logits)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-7)
    names = {e.primitive.name for e, _ in equations(jax.make_jaxpr(jax.grad(ours))(logits).jaxpr)}
    assert not {name for name in names if "scatter" in name or "gather" in name}


def test_bfloat16_logits_are_summed_in_float32(batch):
    logits, targets, weights = batch
    rounded = jnp.asarray(logits, jnp.bfloat16)
    rest = (jnp.asarray(targets), jnp.asarray(weights))
    sums = cross_entropy_sums(rounded, *rest)
    assert {x.dtype.name for x in sums[:3]} == {"float32"}
    expected = cross_entropy_sums(rounded.astype(jnp.float32), *rest)
    np.testing.assert_array_equal(sums[:3], expected[:3])


@pytest.mark.parametrize("soft_cap", [None, 3.0])
@pytest.mark.parametrize("n_tokens", [8, 7])
def test_in_parts_the_loss_and_its_gradients_are_the_whole_ones(monkeypatch, soft_cap, n_tokens):
    """Three parts of the vocabulary, the last one smaller, by three or four parts of the tokens."""
    monkeypatch.setattr(blocks, "VOCABULARY_PART", 4)
    monkeypatch.setattr(blocks, "CPU_LOGIT_BYTES", 100)
    generator = np.random.default_rng(0)
    x_MD = jnp.asarray(generator.normal(size=(n_tokens, 5)), jnp.float32)
    table_VD = jnp.asarray(generator.normal(size=(11, 5)), jnp.float32)
    targets_M = jnp.asarray([0, 3, 4, 10, 7, 8, 1, 2][:n_tokens])
    weights_M = jnp.asarray([1, 1, 0, 1, 1, 1, 0, 1][:n_tokens], jnp.float32)
    options = parts_of_logits._Options(z_loss=0.1, soft_cap=soft_cap, operands=jnp.dtype("float32"))

    def whole(x_MD, table_VD):
        logits = x_MD @ table_VD.T
        if soft_cap is not None:
            logits = soft_cap * jnp.tanh(logits / soft_cap)
        sums = cross_entropy_sums(logits[None], targets_M[None], weights_M[None])
        return 2 * (sums.cross_entropy + 0.1 * sums.z_loss), sums

    def in_parts(x_MD, table_VD):
        loss, sums = parts_of_logits.loss_in_parts(x_MD, table_VD, targets_M, weights_M, options)
        return 2 * loss, sums

    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5)
    want, want_gradients = jax.value_and_grad(whole, (0, 1), has_aux=True)(x_MD, table_VD)
    got, got_gradients = jax.value_and_grad(in_parts, (0, 1), has_aux=True)(x_MD, table_VD)
    jax.tree.map(close, got, want)
    jax.tree.map(close, got_gradients, want_gradients)
    jax.tree.map(close, in_parts(x_MD, table_VD), want)  # without a gradient
    text = jax.jit(jax.grad(in_parts, (0, 1), has_aux=True)).lower(x_MD, table_VD).as_text()
    assert f"tensor<{n_tokens}x11xf32>" not in text
    assert "x4xf32>" in text


@pytest.mark.parametrize("products", ["cpu", "plain"])
@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False}, {"vocab_multiple": 8}])
def test_a_model_has_the_same_loss_in_parts(monkeypatch, changes, products):
    monkeypatch.setattr(blocks, "VOCABULARY_PART", 6)
    for limit in ("LOGIT_BYTES", "CPU_LOGIT_BYTES"):
        monkeypatch.setattr(blocks, limit, 300)
    shape = {"vocab_size": 13, "seq_len": 8, "n_layers": 1, "d_model": 8, "n_heads": 2}
    config = ModelConfig(**shape, logit_soft_cap=5.0, **changes)
    parts, whole = (
        make_gpt(config, ComputeConfig(dtype="float32", loss=loss, products=products))
        for loss in ("parts", "whole")
    )
    params = parts.init(jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 13, (3, 9))
    batch = Batch(tokens[:, :-1], tokens[:, 1:], np.ones((3, 8), np.float32), None)

    def of(model):
        loss = functools.partial(
            batch_loss, model, batch=batch, loss_weights=LossWeights(z_loss=0.01)
        )
        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    logits = f"tensor<3x8x{config.padded_vocab_size}xf32>"
    assert logits not in of(parts).lower(params).as_text()
    assert logits in of(whole).lower(params).as_text()
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
    jax.tree.map(close, of(parts)(params), of(whole)(params))
