"""Scores and weights of attention, to be looked at: no kernel stores them."""

import jax
import jax.numpy as jnp

from gpt_jax.models.pattern import Pattern, distance_of, log_total, mask_bias


def causal_scores(q_BTNH: jax.Array, k_BTKH: jax.Array, pattern: Pattern) -> jax.Array:
    """q k / divisor where a query sees a key, 0 elsewhere: [B, N, T, S], to be looked at."""
    return jnp.tril(_all_scores(q_BTNH, k_BTKH, pattern))


def attention_weights(
    q_BTNH: jax.Array, k_BTKH: jax.Array, segments_BT: jax.Array | None, pattern: Pattern
) -> jax.Array:
    """The share of each value in a query's output, [B, N, T, S], to be looked at: every change of
    scores applied, so that a row may sum to less than 1 (attention sinks)."""
    positions_1T = jnp.arange(q_BTNH.shape[1])[None]
    bias = mask_bias(positions_1T, positions_1T, segments_BT, segments_BT, pattern)
    distance = distance_of(positions_1T, positions_1T)
    scores_BNTS = pattern.changed(_all_scores(q_BTNH, k_BTKH, pattern), distance) + bias
    weights_BTNS = jax.nn.softmax(scores_BNTS, axis=-1).swapaxes(1, 2)
    if pattern.reads_total:
        weights_BTNS = pattern.finished(weights_BTNS, log_total(scores_BNTS))
    return weights_BTNS.swapaxes(1, 2)


def _all_scores(q_BTNH: jax.Array, k_BTKH: jax.Array, pattern: Pattern) -> jax.Array:
    """q k / divisor, [B, N, T, S] float32."""
    group = q_BTNH.shape[2] // k_BTKH.shape[2]
    k_BTNH = jnp.repeat(k_BTKH, group, axis=2).astype(jnp.float32)
    return jnp.einsum("BTNH,BSNH->BNTS", pattern.scale(q_BTNH).astype(jnp.float32), k_BTNH)
