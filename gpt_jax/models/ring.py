"""Ring attention: the sequence dim split over devices, keys and values passed around.

Each device holds the queries of its part and sees the keys of all parts, one after another, as they
come by (Liu et al. 2023, "Ring Attention with Blockwise Transformers"): no device ever holds all
keys. A causal mask would leave the first device idle most of the time; so the sequence is cut into
2 P chunks and device i holds chunks i and 2 P - 1 - i (zig-zag order): every device then multiplies
two pairs of chunks at every step of the ring, and three at the first.

Softmax runs over what has come by: maxima and sums are corrected as in FlashAttention (Dao et al.
2022). The gradient recomputes the scores on a second tour, with the keys' gradients travelling with
the keys. Dims as in `attention`; C tokens of a chunk, Q queries of a block, P parts of the ring.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from gpt_jax.models.pattern import MASKED
from gpt_jax.models.products import Precision
from gpt_jax.parallel.sharding import SEQUENCE_AXIS, Axes, Layout


class Ring(NamedTuple):
    """Static parameters of ring attention."""

    n_parts: int
    chunk: int
    """Tokens of a chunk: T / (2 P)."""
    block: int
    """Queries whose scores are there at a time."""
    window: int | None
    sloped: bool
    """Whether scores have ALiBi's penalty."""
    operands: jnp.dtype
    """Dtype of matmul operands, and of the keys and values that are sent around the ring."""
    activations: jnp.dtype
    change: Callable[[jax.Array], jax.Array] | None = None
    """A function of each score, before masks and penalties."""


class Keys(NamedTuple):
    """Two chunks on a leading dim, the lower first: what travels around the ring."""

    k: jax.Array
    """[2, B, K, C, H]"""
    v: jax.Array
    segments: jax.Array
    """[2, B, C]"""


class Queries(NamedTuple):
    """Two chunks on a leading dim, the lower first: what stays."""

    q: jax.Array
    """[2, B, K, G, C, H], scaled: products with keys are the scores."""
    segments: jax.Array
    slopes_KG: jax.Array


def zigzag(x: jax.Array, layout: Layout, axes: Axes, back: bool = False) -> jax.Array:
    """x with dim 1 brought into zig-zag order, or `back`.

    Dim 1 is split over the sequence axis before and after: each device sends its two halves to two
    devices, and no device holds more than its part.
    """
    n_parts = layout.mesh.shape[SEQUENCE_AXIS]
    chunks = range(2 * n_parts)
    sends = [(c // 2, min(c, 2 * n_parts - 1 - c)) for c in chunks]  # (from, to) of each chunk
    even, odd = sends[0::2], sends[1::2]  # each of them a permutation of the devices
    permute = functools.partial(jax.lax.ppermute, axis_name=SEQUENCE_AXIS)

    def one_device(x: jax.Array) -> jax.Array:
        first, second = jnp.split(x, 2, axis=1)
        # In zig-zag order an odd device has an odd chunk first: c, and 2 P - 1 - c, which is even.
        turned = jax.lax.axis_index(SEQUENCE_AXIS) % 2 == 1
        if back:
            first, second = jnp.where(turned, second, first), jnp.where(turned, first, second)
            first = permute(first, perm=[pair[::-1] for pair in even])
            second = permute(second, perm=[pair[::-1] for pair in odd])
        else:
            first, second = permute(first, perm=even), permute(second, perm=odd)
            first, second = jnp.where(turned, second, first), jnp.where(turned, first, second)
        return jnp.concatenate([first, second], axis=1)

    spec = layout.spec(axes)
    return jax.shard_map(
        one_device, mesh=layout.mesh, in_specs=spec, out_specs=spec, check_vma=False
    )(x)


def attend(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    window: int | None,
    slopes: tuple[float, ...] | None,
    how: Precision,
    block: int,
    segments_BT: jax.Array | None,
    layout: Layout,
    change: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Causal self-attention of sequences in zig-zag order, [B, T, N, H], and the logarithm of the
    softmax's denominator [B, T, N]; queries are scaled."""
    n_parts = layout.mesh.shape[SEQUENCE_AXIS]
    chunk = q_BTNH.shape[1] // (2 * n_parts)
    block = block if chunk % block == 0 else chunk
    operands, activations = jnp.dtype(how.operands), jnp.dtype(how.activations)
    sloped = slopes is not None
    ring = Ring(n_parts, chunk, block, window, sloped, operands, activations, change)
    if segments_BT is None:
        segments_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)
    slopes_N = jnp.asarray(slopes or (0.0,) * q_BTNH.shape[2], jnp.float32)
    q_BTNH, k_BTKH, v_BTKH = (x.astype(activations) for x in (q_BTNH, k_BTKH, v_BTKH))
    q_spec = layout.spec(("act_batch", "act_seq", "act_heads", None))
    kv_spec = layout.spec(("act_batch", "act_seq", "act_kv_heads", None))

    def one_device(q_BtNH, k_BtKH, v_BtKH, segments_Bt, slopes_N):
        n_kv_heads = k_BtKH.shape[2]

        def heads_first(x_BtKH: jax.Array) -> jax.Array:
            return _two_chunks(x_BtKH.swapaxes(1, 2), 2)

        q_2BNCH, segments_2BC = heads_first(q_BtNH), _two_chunks(segments_Bt, 1)
        group = (n_kv_heads, q_2BNCH.shape[2] // n_kv_heads)
        q_2BKGCH = q_2BNCH.reshape(*q_2BNCH.shape[:2], *group, *q_2BNCH.shape[3:])
        queries = Queries(q_2BKGCH, segments_2BC, slopes_N.reshape(group))
        keys = Keys(heads_first(k_BtKH), heads_first(v_BtKH), segments_2BC)
        out, log_total = _attend(ring, queries, keys)
        out_BNtH = jnp.concatenate(list(out.reshape(q_2BNCH.shape)), 2)
        log_total_BNt = jnp.concatenate(list(log_total.reshape(q_2BNCH.shape[:-1])), 2)
        return out_BNtH.swapaxes(1, 2), log_total_BNt.swapaxes(1, 2)

    return jax.shard_map(
        one_device,
        mesh=layout.mesh,
        in_specs=(q_spec, kv_spec, kv_spec, layout.batch.spec, PartitionSpec(q_spec[2])),
        out_specs=(q_spec, PartitionSpec(*q_spec[:3])),
        check_vma=False,
    )(q_BTNH, k_BTKH, v_BTKH, segments_BT, slopes_N)


def _two_chunks(x: jax.Array, axis: int) -> jax.Array:
    return jnp.stack(jnp.split(x, 2, axis))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(ring: Ring, queries: Queries, keys: Keys) -> tuple[jax.Array, jax.Array]:
    """Output [2, B, K, G, C, H] and logarithm of the denominator [2, B, K, G, C], of a device."""
    return _forward(ring, queries, keys)[0]


def _forward(ring: Ring, queries: Queries, keys: Keys):
    """Output and logarithm of the denominator, and besides them what the gradient needs."""
    queries = queries._replace(q=queries.q.astype(ring.operands))
    keys = keys._replace(k=keys.k.astype(ring.operands), v=keys.v.astype(ring.operands))
    shape = queries.q.shape
    empty = (jnp.full(shape[:-1], MASKED), jnp.zeros(shape[:-1]), jnp.zeros(shape))

    def meet(seen, turn: int | jax.Array, keys: Keys):
        for q_side, k_side in _pairs(ring, turn):
            chosen = tuple(x[q_side] for x in seen)
            new = _add_keys(ring, queries, keys, q_side, k_side, turn, chosen)
            seen = tuple(x.at[q_side].set(y) for x, y in zip(seen, new, strict=True))
        return seen

    def one_turn(turn: jax.Array, carry):
        seen, keys = carry
        # Sent on before the products, which do not wait for it: one tour is one send too many.
        return meet(seen, turn, keys), _send(ring, keys)

    start = meet(empty, 0, keys), _send(ring, keys)
    (highest, total, values), _ = jax.lax.fori_loop(1, ring.n_parts, one_turn, start)
    out = (values / total[..., None]).astype(ring.activations)
    log_total = highest + jnp.log(total)
    return (out, log_total), (queries, keys, out, log_total)


def _backward(ring: Ring, saved, gradients: tuple[jax.Array, jax.Array]):
    queries, keys, out, log_total = saved
    d_out = gradients[0].astype(jnp.float32)
    # Of each query, what softmax's gradient subtracts; a gradient of the denominator's logarithm
    # is one of all scores, by their weights.
    inner = jnp.sum(d_out * out, axis=-1) - gradients[1]

    def meet(gradients, turn: int | jax.Array, keys: Keys):
        d_q, d_k, d_v = gradients
        for q_side, k_side in _pairs(ring, turn):
            rows = log_total[q_side], inner[q_side], d_out[q_side]
            add_q, add_k, add_v = _pair_gradients(ring, queries, keys, q_side, k_side, turn, rows)
            d_q = d_q.at[q_side].add(add_q)
            d_k, d_v = d_k.at[k_side].add(add_k), d_v.at[k_side].add(add_v)
        return d_q, d_k, d_v

    def one_turn(turn: jax.Array, carry):
        (d_q, *d_keys), keys = carry
        # The gradients travel with their keys, one step behind the products that made them.
        d_k, d_v = _send(ring, d_keys)
        return meet((d_q, d_k, d_v), turn, keys), _send(ring, keys)

    zeros = tuple(jnp.zeros(x.shape) for x in (queries.q, keys.k, keys.v))
    start = meet(zeros, 0, keys), _send(ring, keys)
    (d_q, *d_keys), _ = jax.lax.fori_loop(1, ring.n_parts, one_turn, start)
    d_k, d_v = _send(ring, d_keys)  # home
    d_q, d_k, d_v = (x.astype(ring.activations) for x in (d_q, d_k, d_v))
    none: Any = np.zeros(queries.segments.shape, jax.dtypes.float0)
    return Queries(d_q, none, jnp.zeros_like(queries.slopes_KG)), Keys(d_k, d_v, none)


_attend.defvjp(_forward, _backward)


def _send(ring: Ring, tree: Any) -> Any:
    """Send the arrays of each device to the next device of the ring."""
    to_next = [(i, (i + 1) % ring.n_parts) for i in range(ring.n_parts)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, SEQUENCE_AXIS, to_next), tree)


def _pairs(ring: Ring, turn: int | jax.Array) -> list[tuple[Any, Any]]:
    """(which queries, which keys) meet in a turn, 0 the lower and 1 the higher chunk of each.

    Higher queries see all lower keys. Of keys from a device before this one, the lower queries see
    the lower ones; of a device after it, the higher queries see the higher ones.
    """
    if isinstance(turn, int):
        assert turn == 0
        return [(0, 0), (1, 1), (1, 0)]  # every query sees itself first: its maximum is a number
    here = jax.lax.axis_index(SEQUENCE_AXIS)
    side = jnp.where(turn <= here, 0, 1)  # from (here - turn) mod P: before, if it did not wrap
    return [(1, 0), (side, side)]


def _meet(ring: Ring, queries: Queries, keys: Keys, q_side: Any, k_side: Any, turn: Any):
    """(queries, the chosen chunk of keys, positions of the first query and key of the two chunks).

    Masks follow from positions and segments alone, which are the same in every layer. Without a
    barrier a scan over layers computes them all beforehand: [P - 1, T / block, ..., block, C].
    """
    here = jax.lax.axis_index(SEQUENCE_AXIS)

    def start(device: jax.Array, side: Any) -> jax.Array:
        return ring.chunk * jnp.where(side == 0, device, 2 * ring.n_parts - 1 - device)

    starts = start(here, q_side), start((here - turn) % ring.n_parts, k_side)
    queries, starts = jax.lax.optimization_barrier((queries, starts))
    return queries, Keys(*(x[k_side] for x in keys)), *starts


def _in_blocks(ring: Ring, x: jax.Array, axis: int) -> jax.Array:
    """[n, ..., block, ...] of [..., C, ...]."""
    shape = (*x.shape[:axis], -1, ring.block, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _whole(x: jax.Array, axis: int) -> jax.Array:
    """Undoes `_in_blocks`."""
    moved = jnp.moveaxis(x, 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])


def _unless_unseen(ring: Ring, q_start, k_start, compute: Callable, otherwise: Any) -> Any:
    """compute(), where a window reaches from the queries' chunk to the keys'."""
    if ring.window is None:
        return compute()
    reached = q_start - (k_start + ring.chunk - 1) < ring.window
    return jax.lax.cond(reached, compute, lambda: otherwise)


def _scores(
    ring: Ring, queries: Queries, query: tuple, keys: Keys, k_start: Any
) -> tuple[jax.Array, jax.Array | None]:
    """[B, K, G, block, C] float32, MASKED where a query does not see a key; and the derivative of
    `Ring.change`, if there is one."""
    q_block, q_positions, q_segments = query
    k, _, k_segments = keys
    scores = _product(ring, "BKGQH,BKSH->BKGQS", q_block, k)
    derivative = None
    if ring.change is not None:
        scores, derivative = jax.jvp(ring.change, (scores,), (jnp.ones_like(scores),))
    distance_QS = q_positions[:, None] - (k_start + jnp.arange(ring.chunk))[None]
    seen_BQS = (distance_QS >= 0) & (q_segments[:, :, None] == k_segments[:, None])
    if ring.window is not None:
        seen_BQS &= distance_QS < ring.window
    penalty = queries.slopes_KG[:, :, None, None] * distance_QS if ring.sloped else 0.0
    return scores + jnp.where(seen_BQS[:, None, None], -penalty, MASKED), derivative


def _product(ring: Ring, dims: str, a: jax.Array, b: jax.Array) -> jax.Array:
    exact = jax.lax.Precision.HIGHEST if ring.operands == jnp.float32 else None
    a, b = a.astype(ring.operands), b.astype(ring.operands)
    return jnp.einsum(dims, a, b, precision=exact, preferred_element_type=jnp.float32)


def _blocks_of(ring: Ring, queries: Queries, q_side: Any, q_start: Any):
    """Blocks of the queries of a chunk, their positions and segments."""
    positions = q_start + jnp.arange(ring.chunk)
    segments = _in_blocks(ring, queries.segments[q_side], 1)
    return _in_blocks(ring, queries.q[q_side], 3), positions.reshape(-1, ring.block), segments


def _add_keys(ring: Ring, queries: Queries, keys: Keys, q_side, k_side, turn, seen):
    """(highest score, sum of weights, sum of weighted values) with the keys of a chunk besides."""
    queries, chosen, q_start, k_start = _meet(ring, queries, keys, q_side, k_side, turn)

    def one_block(block):
        query, (highest, total, values) = block
        scores, _ = _scores(ring, queries, query, chosen, k_start)
        new_highest = jnp.maximum(highest, jnp.max(scores, axis=-1))
        weights = jnp.exp(scores - new_highest[..., None])
        kept = jnp.exp(highest - new_highest)
        added = _product(ring, "BKGQS,BKSH->BKGQH", weights, chosen.v)
        total = kept * total + jnp.sum(weights, axis=-1)
        return new_highest, total, kept[..., None] * values + added

    def compute():
        blocks = tuple(_in_blocks(ring, x, 3) for x in seen)
        new = jax.lax.map(one_block, (_blocks_of(ring, queries, q_side, q_start), blocks))
        return tuple(_whole(x, 3) for x in new)

    return _unless_unseen(ring, q_start, k_start, compute, seen)


def _pair_gradients(ring: Ring, queries: Queries, keys: Keys, q_side, k_side, turn, rows):
    """Gradients of the queries, keys and values of a pair of chunks.

    rows: of the queries, log of the sum of weights, the inner product of output and its gradient,
    and that gradient.
    """
    queries, chosen, q_start, k_start = _meet(ring, queries, keys, q_side, k_side, turn)

    def one_block(carry, block):
        query, (log_total, inner, d_out) = block
        scores, derivative = _scores(ring, queries, query, chosen, k_start)
        weights = jnp.exp(scores - log_total[..., None])
        d_weights = _product(ring, "BKGQH,BKSH->BKGQS", d_out, chosen.v)
        d_scores = weights * (d_weights - inner[..., None])
        d_scores = d_scores if derivative is None else d_scores * derivative
        d_k, d_v = carry
        d_k += _product(ring, "BKGQS,BKGQH->BKSH", d_scores, query[0])
        d_v += _product(ring, "BKGQS,BKGQH->BKSH", weights, d_out)
        return (d_k, d_v), _product(ring, "BKGQS,BKSH->BKGQH", d_scores, chosen.k)

    zeros = jnp.zeros(chosen.k.shape), jnp.zeros(chosen.v.shape)

    def compute():
        blocks = tuple(_in_blocks(ring, x, 3) for x in rows)
        queries_in_blocks = _blocks_of(ring, queries, q_side, q_start)
        (d_k, d_v), d_q = jax.lax.scan(one_block, zeros, (queries_in_blocks, blocks))
        return _whole(d_q, 3), d_k, d_v

    nothing = jnp.zeros(queries.q.shape[1:]), *zeros
    return _unless_unseen(ring, q_start, k_start, compute, nothing)
