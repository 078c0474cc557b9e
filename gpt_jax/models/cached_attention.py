"""Attention of new tokens to a cache of keys and values: decoding."""

import jax
import jax.numpy as jnp

from gpt_jax.models import cpu
from gpt_jax.models.pattern import Pattern, distance_of, log_total, mask_bias
from gpt_jax.models.products import Precision


def attend_cached(
    q_BTNH: jax.Array,
    k_CSH: jax.Array,
    v_CSH: jax.Array,
    positions_BT: jax.Array,
    pattern: Pattern,
    how: Precision,
) -> jax.Array:
    """Queries at `positions_BT` over a cache whose slot s holds the key of position s.

    C = B K: one product for each row and key head, of the cache as it lies and in its type; other
    forms would copy it.
    """
    n_batch, n_queries, n_heads, head_size = q_BTNH.shape
    n_products, n_slots = k_CSH.shape[:2]
    q_BNTH = pattern.scale(q_BTNH).swapaxes(1, 2)
    q_CQH = q_BNTH.reshape(n_products, -1, head_size).astype(k_CSH.dtype)
    slots_1S = jnp.arange(n_slots)[None]
    bias = mask_bias(positions_BT, slots_1S, None, None, pattern)
    scores_BNTS = cpu.multiply(q_CQH, k_CSH, b_dim=-1).reshape(n_batch, n_heads, n_queries, n_slots)
    scores_BNTS = bias + pattern.changed(scores_BNTS, distance_of(positions_BT, slots_1S))
    weights_CQS = jax.nn.softmax(scores_BNTS, axis=-1).reshape(n_products, -1, n_slots)
    out_CQH = cpu.multiply(weights_CQS.astype(v_CSH.dtype), v_CSH)
    out_BNTH = out_CQH.reshape(n_batch, n_heads, n_queries, head_size)
    out_BTNH = out_BNTH.swapaxes(1, 2).astype(how.activations)
    return pattern.finished(out_BTNH, log_total(scores_BNTS)) if pattern.reads_total else out_BTNH
