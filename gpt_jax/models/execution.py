"""How a model is computed on a backend: every `auto` of `compute`, decided."""

import dataclasses

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.cost import blocks
from gpt_jax.models import kernels
from gpt_jax.models.products import Precision, precision

OVERLAP: dict[str, tuple[tuple[str, bool | int], ...]] = {
    "gpu": (("xla_gpu_enable_latency_hiding_scheduler", True),),
}
"""Options by backend that let collectives run beside products.

Pipelined collectives are left out: XLA peels the first of the microbatches for them and keeps its
activations beside the next one's. GPT-3 1.3B on eight H100s (remat none, 8 microbatches) then needs
58 GiB instead of 32, while by the compiled program next to nothing is left to hide.
"""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a model is computed: what `ComputeConfig` asks for, decided for a backend."""

    how: Precision
    kernel: kernels.Kernel
    attention_block: int
    unroll: bool
    remat: str
    loss_in_parts: bool
    """Whether the logits of a batch are never stored whole: where the vocabulary is large."""
    compiler_options: tuple[tuple[str, bool | int], ...]
    """XLA compiler options of the training step."""


def decide_execution(
    model: ModelConfig,
    compute: ComputeConfig,
    backend: str,
    n_devices: int = 1,
    sequence_parts: int = 1,
) -> Execution:
    """Resolve every `auto` of the compute config for a backend (cpu, gpu or tpu).

    sequence_parts: of the n_devices, those that split the sequence (`mesh.sequence`).

    Raises ValueError for products that the backend cannot compute.
    """
    how = precision(compute.dtype, compute.products, backend, n_devices)
    if backend == "cpu" and how.operands == "bfloat16" and not how.cpu_forms:
        raise ValueError(
            "compute.dtype = bfloat16 on a CPU needs compute.products = auto or cpu, on one "
            "device: XLA:CPU does not compile plain products of bfloat16 with a float32 result; "
            "set that, or compute.dtype = float32"
        )
    unroll = compute.layers == "unroll"
    if compute.layers == "auto":
        unroll = backend == "cpu" and model.n_layers <= blocks.UNROLL_UP_TO
    parts_are_faster = backend == "tpu" or (backend == "cpu" and n_devices == 1)
    kernel = kernels.choose_kernel(model, compute, backend, sequence_parts)
    return Execution(
        how=how,
        kernel=kernel,
        attention_block=blocks.block_length(
            compute.attention_block, model.seq_len, backend, kernel.name
        ),
        unroll=unroll,
        remat=compute.remat,
        loss_in_parts=model.vocab_size > blocks.VOCABULARY_PART
        and (compute.loss == "parts" or (compute.loss == "auto" and parts_are_faster)),
        compiler_options=compiler_options(compute, backend, n_devices),
    )


def compiler_options(
    compute: ComputeConfig, backend: str, n_devices: int
) -> tuple[tuple[str, bool | int], ...]:
    """Options of XLA beyond its defaults: collectives beside products, on several devices."""
    if compute.overlap == "off" or n_devices == 1:
        return ()
    return OVERLAP.get(backend, ())
