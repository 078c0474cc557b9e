"""How a model is computed on a backend: every `auto` of `compute`, decided."""

import dataclasses

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.models import attention
from gpt_jax.models.products import Precision, precision

UNROLL_UP_TO = 24
"""On CPU, `compute.layers = auto` unrolls models of up to this many layers."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a model is computed: what `ComputeConfig` asks for, decided for a backend."""

    how: Precision
    kernel: attention.Kernel
    attention_block: int
    unroll: bool
    remat: str
    loss_in_parts: bool
    """Whether the logits of a large vocabulary are never stored whole."""


def decide_execution(
    model: ModelConfig,
    compute: ComputeConfig,
    backend: str,
    n_devices: int = 1,
    sequence_parts: int = 1,
) -> Execution:
    """Resolve every `auto` of the compute config for a backend (cpu, gpu or tpu).

    sequence_parts: of the n_devices, those that split the sequence (`mesh.sequence`).
    """
    unroll = compute.layers == "unroll"
    if compute.layers == "auto":
        unroll = backend == "cpu" and model.n_layers <= UNROLL_UP_TO
    return Execution(
        how=precision(compute.dtype, compute.products, backend, n_devices),
        kernel=attention.choose_kernel(model, compute, backend, sequence_parts),
        attention_block=attention.block_length(model, compute, backend),
        unroll=unroll,
        remat=compute.remat,
        loss_in_parts=compute.loss == "parts"
        or (compute.loss == "auto" and (backend == "tpu" or (backend == "cpu" and n_devices == 1))),
    )
