"""Attention in the form that XLA:CPU is fast at (`gpt_jax.models.cpu`), for blocks of queries.

Softmax weights of a block are kept, in the operands' type, and not computed twice; what would pass
over them once more (their sums, the mean of their gradient) is done by matmuls, or on outputs,
which are a fraction of their size. Dims as in `gpt_jax.models.pattern`; R = T G rows, of G queries
to a key's head at each position.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gpt_jax.models.cpu import multiply, transposed
from gpt_jax.models.pattern import Pattern, mask_bias
from gpt_jax.models.products import Precision

BLOCKS = 16
"""Blocks of queries, at most: each is compiled."""


def attend(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    pattern: Pattern,
    how: Precision,
    block: int,
    segments_BT: jax.Array | None,
) -> jax.Array:
    """Attention of whole sequences: at most BLOCKS blocks of queries, all in the program."""
    n_batch, n_tokens, n_heads, _ = q_BTNH.shape
    grouped = (k_BTKH.shape[2], n_heads // k_BTKH.shape[2])
    block = max(block, -(-n_tokens // BLOCKS))
    biases = []
    for start in range(0, n_tokens, block):
        stop = min(start + block, n_tokens)
        oldest = 0 if pattern.window is None else max(0, start - pattern.window + 1)
        keys = slice(oldest // block * block, stop)
        query_segments = key_segments = None
        if segments_BT is not None:
            query_segments, key_segments = segments_BT[:, start:stop], segments_BT[:, keys]
        positions = jnp.arange(start, stop)[None], jnp.arange(keys.start, stop)[None]
        bias_BNtS = mask_bias(*positions, query_segments, key_segments, pattern)
        biases.append(_by_key_head(bias_BNtS, grouped))
    q_BKRH = _by_key_head(pattern.scale(q_BTNH).astype(jnp.float32).swapaxes(1, 2), grouped)
    k_BKTH, v_BKTH = (x.astype(jnp.float32).swapaxes(1, 2) for x in (k_BTKH, v_BTKH))
    out_BKRH, log_total_BKR = attend_blocks(
        q_BKRH, k_BKTH, v_BKTH, biases, block, how.operands, pattern.elementwise
    )

    def by_position(x_BKRX: jax.Array) -> jax.Array:
        x_BKTGX = x_BKRX.reshape(n_batch, grouped[0], n_tokens, grouped[1], *x_BKRX.shape[3:])
        return x_BKTGX.swapaxes(1, 2).reshape(n_batch, n_tokens, n_heads, *x_BKRX.shape[3:])

    out_BTNH = by_position(out_BKRH).astype(how.activations)
    return pattern.finished(out_BTNH, by_position(log_total_BKR))


def _by_key_head(x_BNTX: jax.Array, grouped: tuple[int, int]) -> jax.Array:
    """[B, K, T G, X] of [B, N, T, X], (K, G) being grouped; N may be 1 for all heads."""
    n_batch, n_heads, n_rows, size = x_BNTX.shape
    n_kv_heads, group = grouped
    if n_heads == 1:
        return jnp.repeat(x_BNTX, group, axis=2)
    x_BKGTX = x_BNTX.reshape(n_batch, n_kv_heads, group, n_rows, size)
    return x_BKGTX.swapaxes(2, 3).reshape(n_batch, n_kv_heads, -1, size)


Elementwise = Callable[[jax.Array], jax.Array] | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def attend_blocks(
    q_BKRH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    biases: list[jax.Array],
    block: int,
    operands: jnp.dtype,
    change: Elementwise = None,
) -> tuple[jax.Array, jax.Array]:
    """softmax(change(q k) + bias) v in float32, [B, K, R, H], for blocks of queries, and the
    logarithm of the softmax's denominator [B, K, R]; q is scaled.

    R = T G rows, of G queries to a key's head at each position. biases: for each block of `block`
    positions (the last may be shorter) [B or 1, K or 1, rows, S]: for S keys that end where the
    block ends, and begin where a block begins. They have no gradient.

    Keys and values are not repeated G times: it would be slower, and jax 0.10's CPU compiler gives
    wrong numbers where a product of a repeated operand is fused with a sum over the other one.
    """
    return _attend_forward(q_BKRH, k_BKTH, v_BKTH, biases, block, operands, change)[0]


def _attend_forward(q_BKRH, k_BKTH, v_BKTH, biases, block, operands, change):
    q_BKRH, k_BKTH, v_BKTH = (x.astype(operands) for x in (q_BKRH, k_BKTH, v_BKTH))
    # A last column of ones sums the weights in the product that adds up the values.
    v1_BKTH = jnp.concatenate([v_BKTH, jnp.ones_like(v_BKTH[..., :1])], axis=-1)
    sums, all_weights, all_highest, derivatives = [], [], [], []
    for queries, keys, bias in _spans(biases, block, q_BKRH.shape[2] // k_BKTH.shape[2]):
        scores_BKRS = multiply(q_BKRH[:, :, queries], k_BKTH[:, :, keys], b_dim=-1)
        if change is not None:
            ones = jnp.ones_like(scores_BKRS)
            scores_BKRS, derivative = jax.jvp(change, (scores_BKRS,), (ones,))
            derivatives.append(derivative.astype(operands))
        scores_BKRS = scores_BKRS + bias
        highest_BKR1 = jnp.max(scores_BKRS, axis=-1, keepdims=True)
        weights_BKRS = jnp.exp(scores_BKRS - highest_BKR1).astype(operands)
        sums.append(multiply(weights_BKRS, v1_BKTH[:, :, keys]))
        all_weights.append(weights_BKRS)
        all_highest.append(highest_BKR1)
    sums_BKRH = _joined(sums)
    total_BKR1 = sums_BKRH[..., -1:]
    out_BKRH = sums_BKRH[..., :-1] / total_BKR1
    log_total_BKR = (_joined(all_highest) + jnp.log(total_BKR1))[..., 0]
    saved = q_BKRH, k_BKTH, v_BKTH, biases, all_weights, derivatives, out_BKRH, total_BKR1
    return (out_BKRH, log_total_BKR), saved


def _attend_backward(block, operands, change, saved, gradients):
    """Weights are saved as exponentials, not divided by their sum: the gradient is, instead.

    The mean of a softmax's gradient is that of the output times the output (FlashAttention, Dao et
    al. 2022, appendix B.2). A gradient of the denominator's logarithm is one of all scores, by
    their weights: it is taken from that mean.
    """
    q_BKRH, k_BKTH, v_BKTH, biases, all_weights, derivatives, out_BKRH, total_BKR1 = saved
    gradient_BKRH, log_gradient_BKR = gradients
    gradient_BKRH = (gradient_BKRH / total_BKR1).astype(operands)
    mean_BKR1 = jnp.sum(gradient_BKRH.astype(jnp.float32) * out_BKRH, axis=-1, keepdims=True)
    mean_BKR1 -= log_gradient_BKR[..., None] / total_BKR1
    q_gradients = []
    k_gradients: list[jax.Array | float] = [0.0] * len(biases)
    v_gradients: list[jax.Array | float] = [0.0] * len(biases)
    spans = _spans(biases, block, q_BKRH.shape[2] // k_BKTH.shape[2])
    for i, ((queries, keys, _), weights) in enumerate(zip(spans, all_weights, strict=True)):
        q, gradient = q_BKRH[:, :, queries], gradient_BKRH[:, :, queries]
        by_weight = multiply(gradient, v_BKTH[:, :, keys], b_dim=-1)
        by_score = weights * (by_weight - mean_BKR1[:, :, queries])
        by_score = (by_score if change is None else by_score * derivatives[i]).astype(operands)
        q_gradients.append(multiply(by_score, k_BKTH[:, :, keys]))
        by_key_BKHS = multiply(transposed(q), by_score)
        by_value_BKHS = multiply(transposed(gradient), weights)
        for j in range(keys.start // block, -(-keys.stop // block)):
            part = slice(j * block - keys.start, (j + 1) * block - keys.start)
            k_gradients[j] += by_key_BKHS[..., part]
            v_gradients[j] += by_value_BKHS[..., part]
    k_gradient, v_gradient = (
        jnp.concatenate(parts, axis=-1).swapaxes(-1, -2) for parts in (k_gradients, v_gradients)
    )
    return _joined(q_gradients), k_gradient, v_gradient, None


attend_blocks.defvjp(_attend_forward, _attend_backward)


def _spans(biases: list[jax.Array], block: int, group: int) -> list[tuple[slice, slice, jax.Array]]:
    """(rows of queries, keys, bias) of every block."""
    spans = []
    for i, bias in enumerate(biases):
        first = i * block
        stop = first + bias.shape[-2] // group
        queries = slice(group * first, group * stop)
        spans.append((queries, slice(stop - bias.shape[-1], stop), bias))
    return spans


def _joined(blocks: list) -> jax.Array:
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=2)
