"""Attention as it is written in the papers, whole or in blocks of queries: the kernels `reference`
and `blockwise`, which compute every change of scores.

Dims as in `gpt_jax.models.pattern`; G = N / K queries a key serves. Softmax is float32.
"""

import functools

import jax
import jax.numpy as jnp

from gpt_jax.models.pattern import Pattern, distance_of, log_total, mask_bias
from gpt_jax.models.products import Precision

STATIC_PARTS = 8
"""At most this many ranges of queries are compiled, each with its own range of keys."""


def attend(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    pattern: Pattern,
    how: Precision,
    block: int,
    segments_BT: jax.Array | None,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """Query blocks one after another: one block is the plain form, [T, T] at once.

    With several, the backward pass recomputes each block's scores, so that memory is linear in T.
    Blocks are grouped into at most STATIC_PARTS ranges; a range reads only the keys from its
    window's start to its own end, and its blocks run in one compiled loop.
    """
    n_tokens = q_BTNH.shape[1]
    n_blocks = -(-n_tokens // block)
    blocks_a_part = -(-n_blocks // STATIC_PARTS)
    whole = blocks_a_part * block
    outputs = []
    for begin in range(0, n_tokens, whole):
        end = min(begin + whole, n_tokens)
        seen_from = 0 if pattern.window is None else max(0, begin - pattern.window + 1)
        keys = slice(seen_from, end)

        def one_block(length: int, start: jax.Array | int, keys: slice = keys) -> jax.Array:
            q_BtNH = jax.lax.dynamic_slice_in_dim(q_BTNH, start, length, axis=1)
            key_positions = jnp.arange(keys.start, keys.stop)[None]
            query_segments = key_segments = None
            if segments_BT is not None:
                query_segments = jax.lax.dynamic_slice_in_dim(segments_BT, start, length, axis=1)
                key_segments = segments_BT[:, keys]
            positions = start + jnp.arange(length)[None]
            bias = mask_bias(positions, key_positions, query_segments, key_segments, pattern)
            distance = distance_of(positions, key_positions)
            drop = None if dropout_key is None else jax.random.fold_in(dropout_key, start)
            return _weighted_values(
                q_BtNH, k_BTKH[:, keys], v_BTKH[:, keys], bias, distance, pattern, how, drop
            )

        if n_blocks > 1:
            one_block = jax.checkpoint(one_block, static_argnums=(0,))
        n_full, remainder = divmod(end - begin, block)
        if n_full == 1:
            outputs.append(one_block(block, begin))
        elif n_full:
            starts = begin + block * jnp.arange(n_full)
            rows = jax.lax.map(functools.partial(one_block, block), starts)
            outputs.append(jnp.moveaxis(rows, 0, 1).reshape(q_BTNH.shape[0], -1, *rows.shape[3:]))
        if remainder:
            outputs.append(one_block(remainder, end - remainder))
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)


def _weighted_values(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    bias_BNTS: jax.Array,
    distance_BTS: jax.Array,
    pattern: Pattern,
    how: Precision,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k / divisor + bias) v, with each key head serving G query heads."""
    n_batch, n_queries, n_heads, head_size = q_BTNH.shape
    n_kv_heads = k_BSKH.shape[2]
    exact = jax.lax.Precision.HIGHEST if how.operands == jnp.float32 else None
    einsum = functools.partial(jnp.einsum, precision=exact, preferred_element_type=jnp.float32)
    grouped = (n_batch, n_queries, n_kv_heads, n_heads // n_kv_heads, head_size)
    q_BTKGH = pattern.scale(q_BTNH).astype(how.operands).reshape(grouped)
    scores_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH.astype(how.operands))
    shape = scores_BKGTS.shape
    scores_BNTS = scores_BKGTS.reshape(n_batch, n_heads, *shape[3:])
    scores_BNTS = pattern.changed(scores_BNTS, distance_BTS) + bias_BNTS
    weights_BNTS = jax.nn.softmax(scores_BNTS, axis=-1)
    if pattern.dropout and dropout_key is not None:
        kept = jax.random.bernoulli(dropout_key, 1 - pattern.dropout, weights_BNTS.shape)
        weights_BNTS = jnp.where(kept, weights_BNTS / (1 - pattern.dropout), 0.0)
    weights_BKGTS = weights_BNTS.reshape(shape).astype(how.operands)
    out_BTKGH = einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH.astype(how.operands))
    out_BTNH = out_BTKGH.reshape(q_BTNH.shape).astype(how.activations)
    return pattern.finished(out_BTNH, log_total(scores_BNTS)) if pattern.reads_total else out_BTNH
