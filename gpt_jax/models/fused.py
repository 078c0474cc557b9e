"""Attention kernels of accelerators' own libraries: cuDNN's on a GPU, splash on a TPU.

Dims as in `gpt_jax.models.attention`, which computes the same function.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gpt_jax.models.pattern import Pattern
from gpt_jax.parallel.sharding import Layout

SPLASH_HEAD = 64
"""Splash attention takes head sizes that are multiples of this; others are padded with zeros."""


def cudnn(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    pattern: Pattern,
    segments_BT: jax.Array | None,
) -> jax.Array:
    """cuDNN's flash attention (GPU, bfloat16)."""
    mask = None
    if segments_BT is not None:
        mask = (segments_BT[:, :, None] == segments_BT[:, None, :])[:, None]
    window = None if pattern.window is None else (pattern.window - 1, 0)
    return jax.nn.dot_product_attention(
        q_BTNH,
        k_BTKH,
        v_BTKH,
        mask=mask,
        scale=None if pattern.divisor is None else 1 / pattern.divisor,
        is_causal=True,
        local_window_size=window,
        implementation="cudnn",
    )


def splash(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    pattern: Pattern,
    segments_BT: jax.Array | None,
    layout: Layout | None,
    interpret: bool = False,
) -> jax.Array:
    """Splash attention (TPU): blocks that the mask hides are never read.

    Each device runs the kernel on its own sequences and heads (`shard_map`). `interpret` runs it
    anywhere, slowly, for tests.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash_lib

    n_tokens = q_BTNH.shape[1]
    by_head = {name: x_N for change in pattern.changes for name, x_N in change.splash_heads}

    def one_device(q, k, v, segments, by_head):
        local_heads, local_kv_heads = q.shape[2], k.shape[2]
        kernel = _splash_kernel(pattern, n_tokens, local_heads // local_kv_heads, interpret)
        ids = None if segments is None else splash_lib.SegmentIds(segments, segments)
        q_BKGTH = q.transpose(0, 2, 1, 3).reshape(q.shape[0], local_kv_heads, -1, *q.shape[1::2])
        k_BKTH, v_BKTH = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        by_head = jax.tree.map(lambda x_N: x_N.reshape(local_kv_heads, -1), by_head)

        def one_head(q, k, v, ids, by_head):
            return kernel(q, k, v, ids, **by_head)

        over_heads = jax.vmap(one_head, in_axes=(0, 0, 0, None, 0))
        out = jax.vmap(over_heads, in_axes=(0, 0, 0, None if ids is None else 0, None))(
            q_BKGTH, k_BKTH, v_BKTH, ids, by_head
        )
        return out.reshape(q.shape[0], local_heads, *q.shape[1::2]).transpose(0, 2, 1, 3)

    q_BTNH, head_size = pattern.scale(q_BTNH), q_BTNH.shape[-1]
    if head_size % SPLASH_HEAD:
        # Zeros at the end of a head change no score, and give values that are cut off again.
        padding = ((0, 0), (0, 0), (0, 0), (0, -head_size % SPLASH_HEAD))
        q_BTNH, k_BTKH, v_BTKH = (jnp.pad(x, padding) for x in (q_BTNH, k_BTKH, v_BTKH))
    if layout is None:
        return one_device(q_BTNH, k_BTKH, v_BTKH, segments_BT, by_head)[..., :head_size]
    q_spec = layout.spec(("act_batch", "act_seq", "act_heads", None))
    kv_spec = layout.spec(("act_batch", "act_seq", "act_kv_heads", None))
    segments_spec = None if segments_BT is None else layout.spec(("act_batch", "act_seq"))
    return jax.shard_map(
        one_device,
        mesh=layout.mesh,
        in_specs=(q_spec, kv_spec, kv_spec, segments_spec, PartitionSpec(q_spec[2])),
        out_specs=q_spec,
        check_vma=False,
    )(q_BTNH, k_BTKH, v_BTKH, segments_BT, by_head)[..., :head_size]


def _splash_kernel(pattern: Pattern, n_tokens: int, n_queries: int, interpret: bool) -> Any:
    """The kernel of the n_queries heads that share a key and value head."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash_lib

    mask: Any = splash_lib.CausalMask((n_tokens, n_tokens))
    if pattern.window is not None:
        mask = splash_lib.LocalMask((n_tokens, n_tokens), (pattern.window - 1, 0), 0)
    size = next(s for s in (512, 256, 128) if n_tokens % s == 0)
    blocks = splash_lib.BlockSizes(
        block_q=size,
        block_kv=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
    changes = {name: value for change in pattern.changes for name, value in change.splash}
    return splash_lib.make_splash_mqa_single_device(
        splash_lib.MultiHeadMask([mask] * n_queries),
        block_sizes=blocks,
        interpret=interpret,
        **changes,
    )
