"""Sizes of the blocks in which a step computes: what the model does and memory estimates know.

Must not import jax.
"""

UNROLL_UP_TO = 24
"""Layers that compute.layers = auto unrolls on a CPU; more take long to compile."""
LOGIT_BYTES, CPU_LOGIT_BYTES = 1 << 27, 1 << 28
"""Bytes of the float32 logits that are computed at a time where the loss is computed in parts. A
CPU adds up a gradient of the embedding table for each part, which is as large as the logits of a
thousand tokens."""
VOCABULARY_PART = 12_288
"""Ids whose logits are computed at a time where the loss is: of more, a CPU's matmuls are slower.
A vocabulary of no more is computed whole."""
RING_BLOCK = 512
"""Queries in a block of ring attention on a TPU: a fifth fewer of the compiler's cycles than 128
(experiments/plan)."""
BLOCK = 128
"""Queries in a block of the kernels that are written in JAX, elsewhere."""
SHORT_CPU_BLOCK, SHORT_CPU_TOKENS = 64, 512
"""Queries in a block on a CPU, for sequences of up to so many tokens."""


def block_length(given: int | None, seq_len: int, backend: str, kernel: str = "blockwise") -> int:
    """Queries in a block of the kernels that are written in JAX.

    given: compute.attention_block. backend: cpu, gpu or tpu.
    """
    if given is not None:
        return given
    if kernel == "ring" and backend == "tpu":
        return RING_BLOCK
    return SHORT_CPU_BLOCK if backend == "cpu" and seq_len <= SHORT_CPU_TOKENS else BLOCK
