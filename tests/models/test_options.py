"""Model options in combination: cached decoding, forms of computing, counts and roles.

By default every choice of every option occurs (a few combinations); under `slow` every pair does.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import option_matrix
import pytest
from jaxprs import product_flops

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.cost.flops import count_parameters, forward_flops_per_sequence, parameter_shapes
from gpt_jax.models.decoding import apply_cached, decoding_params, init_cache
from gpt_jax.models.gpt import make_gpt
from gpt_jax.optim.roles import roles

EACH, PAIRS = option_matrix.rows(1), option_matrix.rows(2)
TOKENS = np.random.default_rng(1).integers(0, 13, (2, 8)).astype(np.int32)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2, 3], [1, 1, 2, 2, 2, 2, 2, 2]], np.int32)


def name_of(row):
    return "; ".join(row.values())


def drawn(model):
    """Parameters far from their initialisation, gains around 1 included."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def draw(path, x):
        gain = path[-1].key == "scale" and model.config.norm_gain == "plain"
        return jnp.asarray(gain + random.normal(0, 0.4, x.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def gpt(config, **compute):
    return make_gpt(config, ComputeConfig(dtype="float32", **compute))


def loss(model, segments_BT, params):
    logits = model.apply(params, TOKENS, segments_BT)[..., :13]
    return jnp.sum(jnp.sin(3 * jax.nn.log_softmax(logits))), logits


def check_cached(config, row):
    """The whole pass, token by token through the cache, and in two pieces."""
    model = gpt(config, attention="reference", layers=row["layers"], products="plain")
    params = drawn(model)
    full = np.asarray(jax.jit(model.apply)(params, TOKENS))
    assert np.ptp(full[..., :13], axis=-1).min() > 1e-3
    piece, decoding = (
        jax.jit(functools.partial(apply_cached, model)),
        decoding_params(model, params),
    )
    cache, cached = init_cache(model, 2, 8), []
    for begin in (0, 4):
        positions_BT = np.broadcast_to(np.arange(begin, begin + 4), (2, 4))
        logits, cache = piece(decoding, TOKENS[:, begin : begin + 4], positions_BT, cache)
        cached.append(logits)
    np.testing.assert_allclose(np.concatenate(cached, axis=1), full, atol=5e-5, rtol=5e-5)


def check_counts(config):
    """Parameters, products and roles against the module."""
    model = gpt(config, attention="reference", layers="scan", products="plain")
    tree = jax.eval_shape(model.init, jax.random.key(0))
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    shapes = {jax.tree_util.keystr(p, simple=True, separator="/"): x.shape for p, x in leaves}
    assert shapes == parameter_shapes(config)
    assert count_parameters(config).n_params_padded == sum(map(math.prod, shapes.values()))
    assert jax.tree.structure(roles(tree)) == jax.tree.structure(tree)
    assert jax.tree.structure(model.param_axes(), is_leaf=lambda x: isinstance(x, tuple)) == (
        jax.tree.structure(tree)
    )
    if config.n_experts is None:  # of experts the program multiplies every one
        one = jax.ShapeDtypeStruct((1, 8), jnp.int32)
        executed = product_flops(jax.make_jaxpr(model.apply)(tree, one).jaxpr)
        beyond = [8 - (config.window_of(kind) or 8) for kind in config.layer_pattern]
        of_windows = 8 * sum(beyond) * config.n_layers // len(beyond)
        width = config.n_heads * config.d_head
        assert executed == forward_flops_per_sequence(config) + 4 * width * of_windows


def assert_close(got, want):
    """Within float32's rounding, by an array's largest value where that is large: gradients of 60
    were seen to differ by 4e-4, and by 2.8e-3 after one bit more or less in every parameter."""
    largest = float(np.max(np.abs(want)))
    np.testing.assert_allclose(got, want, rtol=3e-4, atol=3e-5 * max(10.0, largest))


def check_forms(config, row):
    """Loss, logits and gradients of the plain form, in another form of computing."""
    segments = SEGMENTS if row["packed"] == "yes" else None
    plain = gpt(config, attention="reference", layers="scan", products="plain")
    params = drawn(plain)
    other = gpt(
        config,
        attention="blockwise",
        attention_block=4,
        layers=row["layers"],
        remat=row["remat"],
        products=row["products"],
    )
    want, got = (
        jax.jit(jax.value_and_grad(functools.partial(loss, model, segments), has_aux=True))(params)
        for model in (plain, other)
    )
    jax.tree.map(assert_close, got, want)


@pytest.mark.parametrize("row", EACH, ids=name_of)
def test_every_choice(row):
    config = ModelConfig(**option_matrix.fields_of(row))
    check_counts(config)
    check_cached(config, row)


@pytest.mark.slow
@pytest.mark.parametrize("row", PAIRS, ids=name_of)
def test_every_pair_of_choices(row):
    config = ModelConfig(**option_matrix.fields_of(row))
    check_counts(config)
    check_cached(config, row)
    check_forms(config, row)


def test_every_pair_occurs():
    factors = option_matrix.FACTORS
    for a, b in itertools.combinations(factors, 2):
        found = {(row[a], row[b]) for row in PAIRS}
        assert found == set(itertools.product(factors[a], factors[b]))
    assert len(PAIRS) < 70
    assert len(EACH) == max(map(len, factors.values()))
