"""Causal self-attention, by several kernels that compute the same function.

Dims: B batch, T query position, S key position, N query heads, K key/value heads, G = N / K
queries a key serves, H head size. Softmax is float32. A query sees keys at its own position and
before; `window` limits how many (sliding window), `segments_BT` keeps packed documents apart,
`slopes` adds ALiBi's distance penalty; `Pattern.changes` holds what entries of
`gpt_jax.models.scores` do besides.
"""

import functools

import jax
import jax.numpy as jnp

from gpt_jax.models import cpu
from gpt_jax.models.pattern import MASKED, Pattern
from gpt_jax.models.products import Precision
from gpt_jax.parallel.sharding import Layout

STATIC_PARTS = 8
"""The blockwise kernel compiles at most this many query ranges, each with its own key range."""


CPU_BLOCKS = 16
"""Blocks of queries of the blockwise kernel in its CPU form, which compiles each."""


def attend(
    kernel: str,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    pattern: Pattern,
    how: Precision,
    block: int,
    segments_BT: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
    layout: Layout | None = None,
) -> jax.Array:
    """Self-attention over whole sequences, [B, T, N, H]; position = index, but for the ring kernel,
    whose sequences are in zig-zag order.
    """
    n_tokens = q_BTNH.shape[1]
    if kernel == "ring":
        from gpt_jax.models import ring

        assert layout is not None
        q_BTNH, seen = pattern.scale(q_BTNH), (pattern.window, pattern.slopes)
        return pattern.finished(
            *ring.attend(
                q_BTNH,
                k_BTKH,
                v_BTKH,
                *seen,
                how,
                block,
                segments_BT,
                layout,
                pattern.elementwise,
            )
        )
    if kernel in ("splash", "cudnn"):
        from gpt_jax.models import fused

        if kernel == "splash":
            return fused.splash(q_BTNH, k_BTKH, v_BTKH, pattern, segments_BT, layout)
        return fused.cudnn(q_BTNH, k_BTKH, v_BTKH, pattern, segments_BT)
    block = n_tokens if kernel == "reference" else min(block, n_tokens)
    if how.cpu and not pattern.dropout and pattern.cpu_form:
        return _on_cpu(q_BTNH, k_BTKH, v_BTKH, pattern, how, block, segments_BT)
    return _in_blocks(q_BTNH, k_BTKH, v_BTKH, pattern, how, block, segments_BT, dropout_key)


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
    bias = _bias(positions_BT, slots_1S, None, None, pattern)
    scores_BNTS = cpu.multiply(q_CQH, k_CSH, b_dim=-1).reshape(n_batch, n_heads, n_queries, n_slots)
    scores_BNTS = bias + pattern.changed(scores_BNTS, _distance(positions_BT, slots_1S))
    weights_CQS = jax.nn.softmax(scores_BNTS, axis=-1).reshape(n_products, -1, n_slots)
    out_CQH = cpu.multiply(weights_CQS.astype(v_CSH.dtype), v_CSH)
    out_BNTH = out_CQH.reshape(n_batch, n_heads, n_queries, head_size)
    out_BTNH = out_BNTH.swapaxes(1, 2).astype(how.activations)
    return pattern.finished(out_BTNH, _log_total(scores_BNTS)) if pattern.reads_total else out_BTNH


def causal_scores(q_BTNH: jax.Array, k_BTKH: jax.Array, pattern: Pattern) -> jax.Array:
    """q k / divisor where a query sees a key, 0 elsewhere: [B, N, T, S], to be looked at."""
    return jnp.tril(_all_scores(q_BTNH, k_BTKH, pattern))


def weights(
    q_BTNH: jax.Array, k_BTKH: jax.Array, segments_BT: jax.Array | None, pattern: Pattern
) -> jax.Array:
    """The share of each value in a query's output, [B, N, T, S], to be looked at: every change of
    scores applied, so that a row may sum to less than 1 (attention sinks)."""
    positions_1T = jnp.arange(q_BTNH.shape[1])[None]
    bias = _bias(positions_1T, positions_1T, segments_BT, segments_BT, pattern)
    distance = _distance(positions_1T, positions_1T)
    scores_BNTS = pattern.changed(_all_scores(q_BTNH, k_BTKH, pattern), distance) + bias
    weights_BTNS = jax.nn.softmax(scores_BNTS, axis=-1).swapaxes(1, 2)
    if pattern.reads_total:
        weights_BTNS = pattern.finished(weights_BTNS, _log_total(scores_BNTS))
    return weights_BTNS.swapaxes(1, 2)


def _all_scores(q_BTNH: jax.Array, k_BTKH: jax.Array, pattern: Pattern) -> jax.Array:
    """q k / divisor, [B, N, T, S] float32."""
    group = q_BTNH.shape[2] // k_BTKH.shape[2]
    k_BTNH = jnp.repeat(k_BTKH, group, axis=2).astype(jnp.float32)
    return jnp.einsum("BTNH,BSNH->BNTS", pattern.scale(q_BTNH).astype(jnp.float32), k_BTNH)


def _log_total(scores_BNTS: jax.Array) -> jax.Array:
    """Logarithm of the softmax's denominator, [B, T, N]."""
    return jax.nn.logsumexp(scores_BNTS, axis=-1).swapaxes(1, 2)


def _distance(query_positions_BT: jax.Array, key_positions_BS: jax.Array) -> jax.Array:
    """Tokens from a key to a query, [B or 1, T, S]: below 0 where the key comes later."""
    return query_positions_BT[:, :, None] - key_positions_BS[:, None, :]


def _in_blocks(
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
            bias = _bias(positions, key_positions, query_segments, key_segments, pattern)
            distance = _distance(positions, key_positions)
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


def _on_cpu(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    pattern: Pattern,
    how: Precision,
    block: int,
    segments_BT: jax.Array | None,
) -> jax.Array:
    """Blocks of queries as `cpu.attend` takes them: at most CPU_BLOCKS, all in the program."""
    n_batch, n_tokens, n_heads, _ = q_BTNH.shape
    grouped = (k_BTKH.shape[2], n_heads // k_BTKH.shape[2])
    block = max(block, -(-n_tokens // CPU_BLOCKS))
    biases = []
    for start in range(0, n_tokens, block):
        stop = min(start + block, n_tokens)
        oldest = 0 if pattern.window is None else max(0, start - pattern.window + 1)
        keys = slice(oldest // block * block, stop)
        query_segments = key_segments = None
        if segments_BT is not None:
            query_segments, key_segments = segments_BT[:, start:stop], segments_BT[:, keys]
        positions = jnp.arange(start, stop)[None], jnp.arange(keys.start, stop)[None]
        bias_BNtS = _bias(*positions, query_segments, key_segments, pattern)
        biases.append(_by_key_head(bias_BNtS, grouped))
    q_BKRH = _by_key_head(pattern.scale(q_BTNH).astype(jnp.float32).swapaxes(1, 2), grouped)
    k_BKTH, v_BKTH = (x.astype(jnp.float32).swapaxes(1, 2) for x in (k_BTKH, v_BTKH))
    out_BKRH, log_total_BKR = cpu.attend(
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


def _bias(
    query_positions_BT: jax.Array,
    key_positions_BS: jax.Array,
    query_segments_BT: jax.Array | None,
    key_segments_BS: jax.Array | None,
    pattern: Pattern,
) -> jax.Array:
    """Bias added to the attention scores, [B or 1, N or 1, T, S]: 0 or ALiBi's penalty where the
    query may attend to the key, else MASKED."""
    distance_BTS = _distance(query_positions_BT, key_positions_BS)
    seen_BTS = distance_BTS >= 0
    if pattern.window is not None:
        seen_BTS &= distance_BTS < pattern.window
    if query_segments_BT is not None and key_segments_BS is not None:
        seen_BTS &= query_segments_BT[:, :, None] == key_segments_BS[:, None, :]
    penalty = jnp.zeros(())
    if pattern.slopes is not None:
        slopes_N11 = jnp.asarray(pattern.slopes, jnp.float32)[:, None, None]
        penalty = -slopes_N11 * distance_BTS[:, None]
    return jnp.where(seen_BTS[:, None], penalty, MASKED)


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
    return pattern.finished(out_BTNH, _log_total(scores_BNTS)) if pattern.reads_total else out_BTNH
