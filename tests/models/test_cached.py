"""Logits through the key-value cache equal those of the full pass, for every option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.models.decoding import apply_cached, decoding_params, init_cache
from gpt_jax.models.gpt import make_gpt

SMALL = {"vocab_size": 13, "seq_len": 8, "n_layers": 2, "d_model": 16, "n_heads": 4}


def make_model(layers="scan", **changes):
    """A small model with parameters far from their initialisation: logits tell tokens apart.

    In float32: a cache is not rounded to the type of products.
    """
    compute = ComputeConfig(dtype="float32", layers=layers, attention="reference")
    model = make_gpt(ModelConfig(**{**SMALL, **changes}), compute)
    shapes, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    random = np.random.default_rng(0)
    drawn = [jnp.asarray(random.normal(0, 0.5, shape.shape), jnp.float32) for shape in shapes]
    return model, jax.tree.unflatten(tree, drawn)


OPTIONS = {
    "gpt2": {},
    "gpt1": {"norm_position": "post", "final_norm": False, "activation": "gelu"},
    "gpt3": {"layer_pattern": ("dense", "banded"), "window": 3},
    "llama": {
        "position": "rotary",
        "norm": "rmsnorm",
        "bias": False,
        "activation": "swiglu",
        "n_kv_heads": 2,
        "tied_embeddings": False,
    },
    "palm": {
        "position": "rotary",
        "parallel_block": True,
        "n_kv_heads": 1,
        "activation": "geglu",
        "layer_pattern": ("banded",),
        "window": 4,
    },
    "alibi": {
        "position": "alibi",
        "activation": "relu_squared",
        "n_kv_heads": 2,
        "layer_pattern": ("banded", "dense"),
        "window": 5,
    },
    "sinks": {
        "scores": ("soft_cap", "sinks"),
        "options": {"soft_cap": {"cap": 1.5}},
        "n_kv_heads": 2,
        "layer_pattern": ("banded", "dense"),
        "window": 3,
    },
    "sinusoidal": {"position": "sinusoidal", "norm": "rmsnorm", "norm_position": "post"},
    "none": {
        "position": "none",
        "qk_norm": True,
        "vocab_multiple": 8,
        "logit_soft_cap": 5.0,
        "head_size": 6,
        "activation": "relu",
    },
}


@pytest.mark.parametrize("layers", ["scan", "unroll"])
@pytest.mark.parametrize("option", OPTIONS)
def test_cached_logits_are_those_of_the_full_pass(option, layers):
    model, params = make_model(layers, **OPTIONS[option])
    tokens_BT = np.random.default_rng(1).integers(0, 13, (2, 8)).astype(np.int32)

    # Pieces of 3 tokens. Of row 1's first the last is padding: its rows are one token apart.
    # The last pieces begin where those before end, writing one key again.
    begins = [(0, 0), (3, 2), (5, 4)]

    @jax.jit
    def piece(params, piece_BT, positions_BT, cache):
        return apply_cached(model, params, piece_BT, positions_BT, cache)

    decoding = decoding_params(model, params)
    cache, cached = init_cache(model, 2, 8), np.zeros((2, 8, model.config.padded_vocab_size))
    for begin in begins:
        positions_BT = np.array(begin)[:, None] + np.arange(3)
        piece_BT = np.take_along_axis(tokens_BT, positions_BT, axis=1)
        if begin == (0, 0):
            piece_BT[1, 2] = 12
        logits, cache = piece(decoding, piece_BT, positions_BT, cache)
        np.put_along_axis(cached, positions_BT[..., None], logits, axis=1)
    full = np.asarray(jax.jit(model.apply)(params, tokens_BT))
    assert np.ptp(full[..., :13], axis=-1).min() > 1e-2
    np.testing.assert_allclose(cached[0], full[0], atol=2e-5, rtol=2e-5)
    np.testing.assert_allclose(cached[1, :7], full[1, :7], atol=2e-5, rtol=2e-5)
