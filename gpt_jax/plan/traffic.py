"""What the devices of a mesh send each other in a training step. Must not import jax.

Ring collectives: of an array of s bytes over n devices, gathering or scattering sends s (n - 1) / n
from each, and an all-reduce twice that.
"""

import dataclasses

from gpt_jax import flops
from gpt_jax.config import Config
from gpt_jax.plan.memory import layer_kernels, value_bytes
from gpt_jax.plan.mesh import MeshSizes
from gpt_jax.plan.topology import Topology


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives along one mesh axis in one step, of one device."""

    axis: str
    what: str
    sent_bytes: float
    seconds: float
    """At the axis's share of the interconnect."""


def traffic(config: Config, mesh: MeshSizes, topology: Topology) -> tuple[Traffic, ...]:
    """The collectives of a step; none for an axis of one device."""
    found = []
    for axis, size, outer, what, sent in (
        ("data", mesh.data, mesh.params, "all-reduce of gradients", _data(config, mesh)),
        ("fsdp", mesh.fsdp, mesh.tensor, "gather weights, scatter gradients", _fsdp(config, mesh)),
        ("tensor", mesh.tensor, 1, "gather and scatter activations", _tensor(config, mesh)),
    ):
        if size > 1:
            seconds = sent / topology.axis_bandwidth(size, outer)
            found.append(Traffic(axis, what, sent, seconds))
    return tuple(found)


def _data(config: Config, mesh: MeshSizes) -> float:
    """Float32 gradients, each device's share; summed in each microbatch."""
    counts = flops.count_parameters(config.model)
    share = flops.BYTES_PER_VALUE * counts.n_params_padded / mesh.params
    return config.compute.microbatches * 2 * share * (mesh.data - 1) / mesh.data


def _fsdp(config: Config, mesh: MeshSizes) -> float:
    """Weights for the forward pass and again for the backward pass; gradients in float32."""
    model = config.model
    kernels = layer_kernels(model) * model.n_layers / mesh.tensor
    table = model.padded_vocab_size * model.d_model / mesh.tensor
    a_part = kernels * (2 * value_bytes(config) + 4) + table * (2 * 4 + 2 * 4)
    return config.compute.microbatches * a_part * (mesh.fsdp - 1) / mesh.fsdp


def _tensor(config: Config, mesh: MeshSizes) -> float:
    """Of each layer, forward: its input gathered for attention and for the MLP, and their outputs
    scattered; backward the same of gradients, and the inputs gathered again for those of weights.
    Recomputing gathers, and scatters, once more, all but the last output."""
    model = config.model
    a_layer = 2.0 + 2 + 4  # forward; backward
    a_layer += {"full": 3, "dots": 2, "attention": 0, "none": 0}[config.compute.remat]
    if model.parallel_block:
        a_layer /= 2
    tokens = config.train.batch_sequences * model.seq_len / mesh.batch
    stream = tokens * model.d_model * value_bytes(config)
    logits_and_embedding = 4
    sent = (a_layer * model.n_layers + logits_and_embedding) * stream
    return sent * (mesh.tensor - 1) / mesh.tensor
