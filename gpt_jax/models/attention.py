"""Causal self-attention, by several kernels that compute the same function, a file each.

Dims: B batch, T query position, S key position, N query heads, K key/value heads, G = N / K
queries a key serves, H head size. Softmax is float32. A query sees keys at its own position and
before; `window` limits how many (sliding window), `segments_BT` keeps packed documents apart,
`slopes` adds ALiBi's distance penalty; `Pattern.changes` holds what entries of
`gpt_jax.models.scores` do besides.
"""

import jax

from gpt_jax.models.pattern import Pattern
from gpt_jax.models.products import Precision
from gpt_jax.parallel.sharding import Layout


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
    inputs = q_BTNH, k_BTKH, v_BTKH, pattern, how, block, segments_BT
    if how.cpu_forms and not pattern.dropout and pattern.cpu_form:
        from gpt_jax.models import cpu_attention

        return cpu_attention.attend(*inputs)
    from gpt_jax.models import blockwise

    return blockwise.attend(*inputs, dropout_key)
