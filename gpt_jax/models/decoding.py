"""Decoding: a GPT's logits of new tokens, with a cache of the keys and values of those before."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp

from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.transformer import Cache


def init_cache(model: GPT, n_batch: int, n_slots: int) -> Cache:
    """An empty key-value cache for sequences of up to n_slots tokens.

    In the activations' type: on CPU, XLA would convert all of a bfloat16 cache for each write.
    """
    config = model.config
    n_arrays = config.n_layers if model.execution.unroll else len(config.layer_pattern)
    groups = () if model.execution.unroll else (config.n_layers // n_arrays,)
    shape = (*groups, n_batch * config.kv_heads, n_slots, config.d_head)
    zeros = functools.partial(jnp.zeros, shape, model.execution.how.activations)
    return [{"key": zeros(), "value": zeros()} for _ in range(n_arrays)]


def apply_cached(
    model: GPT,
    params: Params,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    cache: Cache,
    prefix_BPD: jax.Array | None = None,
) -> tuple[jax.Array, Cache]:
    """Logits of tokens at consecutive positions of each row, and the cache with them in it.

    params: `decoding_params`. positions_BT[b, 0] is where row b continues: rows may be of
    different lengths. prefix_BPD: as in `apply`.
    """
    logits, new_cache = model.apply_module(
        {"params": params}, tokens_BT, positions_BT, cache=cache, prefix_BPD=prefix_BPD
    )
    return logits, cast(Cache, new_cache)


def decoding_params(model: GPT, params: Params) -> Params:
    """Parameters as `apply_cached` takes them: all of them are read for every token.

    Kernels and token embeddings have the type that products round them to (a router's stay
    float32); each group of layers that are unrolled has a tree of its own.
    """
    return unstacked_params(model, rounded_params(model, params, ("kernel", "tokens")))


def unstacked_params(model: GPT, params: Params) -> Params:
    """Parameters with a tree for each group of layers, where these are unrolled: the program
    then slices none out of arrays of all layers. A copy of them."""
    if "blocks" not in params or not model.execution.unroll:
        return params
    params = dict(params)
    stacked = params.pop("blocks")
    for i in range(model.config.n_layers // len(model.config.layer_pattern)):
        params[f"blocks_{i}"] = jax.tree.map(lambda x, i=i: x[i], stacked)
    return params


def rounded_params(model: GPT, params: Params, names: tuple[str, ...] = ("kernel",)) -> Params:
    """Parameters of these names in the type that products round them to, which `apply` then
    does not do again; a router's stay float32."""
    operands = model.execution.how.operands

    def rounded(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        of_router = len(path) > 1 and path[-2].key == "router"
        return x.astype(operands) if path[-1].key in names and not of_router else x

    return jax.tree_util.tree_map_with_path(rounded, params)
