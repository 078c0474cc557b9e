"""Bytes that the devices of a mesh send each other in a training step. Must not import jax.

Ring collectives: of an array of s bytes over n devices, gathering or scattering sends s (n - 1) / n
from each, and an all-reduce twice that. Gradients are added along every axis that a parameter is
not split over; each is counted by itself, but for the slices', whose devices first add up among
themselves and then send each a part.
"""

import dataclasses

from gpt_jax.config import Config
from gpt_jax.config.mesh_sizes import MeshSizes
from gpt_jax.cost import flops
from gpt_jax.cost.memory import layer_kernels, value_bytes
from gpt_jax.cost.state import BYTES_PER_VALUE
from gpt_jax.cost.topology import Topology

REPEATING = ("dots", "full", "offload")
"""Rematerialization policies that repeat the collectives of experts and of the ring."""


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives along one mesh axis in one step, of one device."""

    axis: str
    what: str
    sent_bytes: float
    seconds: float
    """At the axis's share of the interconnect."""


def traffic(config: Config, mesh: MeshSizes, topology: Topology) -> tuple[Traffic, ...]:
    """The collectives of a step, the outermost axis first; none for an axis of one device.

    Raises ValueError if no source gives the bandwidth between the topology's slices.
    """
    found: list[Traffic] = []
    outer = 1
    for axis, size, what, sent in (
        ("tensor", mesh.tensor, "gather and scatter activations", _tensor),
        ("sequence", mesh.sequence, "keys around the ring, sum gradients", _sequence),
        ("expert", mesh.expert, "tokens to experts and back, sum gradients", _expert),
        ("fsdp", mesh.fsdp, "gather weights, scatter gradients", _fsdp),
        ("data", mesh.data, "all-reduce of gradients", _data),
    ):
        if size > 1:
            n_bytes = sent(config, mesh)
            seconds = n_bytes / topology.axis_bandwidth(size, outer)
            found.append(Traffic(axis, what, n_bytes, seconds))
        outer *= size
    if mesh.slices > 1:
        n_bytes = _slices(config, mesh)
        seconds = n_bytes / topology.slice_bandwidth(outer)
        found.append(Traffic("slices", "all-reduce of gradients", n_bytes, seconds))
    return tuple(reversed(found))


def _gradients(config: Config, mesh: MeshSizes, experts: bool) -> float:
    """Bytes of float32 gradients on a device: of experts, or of all other parameters."""
    counts = flops.count_parameters(config.model)
    n_params: float = counts.n_params_padded - counts.n_params_experts
    if experts:
        n_params = counts.n_params_experts / mesh.expert
    return BYTES_PER_VALUE * n_params / mesh.params


def _sum(config: Config, n_bytes: float, size: int) -> float:
    """An all-reduce of gradients, in each microbatch."""
    return config.compute.microbatches * 2 * n_bytes * (size - 1) / size


def _data(config: Config, mesh: MeshSizes) -> float:
    held = _gradients(config, mesh, False) + _gradients(config, mesh, True)
    return _sum(config, held, mesh.data)


def _slices(config: Config, mesh: MeshSizes) -> float:
    replicas = mesh.data * mesh.sequence
    shared = _gradients(config, mesh, False) / (replicas * mesh.expert)
    return _sum(config, shared + _gradients(config, mesh, True) / replicas, mesh.slices)


def _fsdp(config: Config, mesh: MeshSizes) -> float:
    """Weights for the forward pass and again for the backward pass; gradients in float32."""
    model = config.model
    kernels = layer_kernels(model, mesh) * model.n_layers
    table = model.padded_vocab_size * model.d_model / mesh.tensor
    a_part = kernels * (2 * value_bytes(config) + 4) + table * (2 * 4 + 2 * 4)
    return config.compute.microbatches * a_part * (mesh.fsdp - 1) / mesh.fsdp


def _tensor(config: Config, mesh: MeshSizes) -> float:
    """Bytes that a device sends along tensor in a step.

    Passes of a layer's activations, as in programs compiled for v5p. Forward, the inputs of
    attention and MLP are gathered and their outputs scattered: 4. Backward, the same of gradients,
    and the inputs gathered again for the gradients of weights: 6. Where all is recomputed, one
    gather and one scatter more. A parallel block has one input: 6, and one gather more. With two
    norms it has two inputs: 9, and two gathers more (counted, not seen in a program).
    """
    model = config.model
    parallel = model.parallel_block
    two_inputs = parallel and model.parallel_norms == "separate"
    a_layer = 9.0 if two_inputs else 6.0 if parallel else 10.0
    if config.compute.remat in ("full", "offload"):
        a_layer += 1 if parallel and not two_inputs else 2
    logits_and_embedding = 4
    sent = (a_layer * config.model.n_layers + logits_and_embedding) * _stream(config, mesh)
    return sent * (mesh.tensor - 1) / mesh.tensor


def _expert(config: Config, mesh: MeshSizes) -> float:
    """With a capacity, rows to their experts and back; without, all tokens of the fellows gathered
    and their sums scattered. Backward the same of gradients, and as often again as recomputed."""
    model, n = config.model, mesh.expert
    rows = n if model.expert_capacity is None else flops.mlp_rows_per_token(model)
    repeated = config.compute.remat in REPEATING
    passes = 2 * (2 + repeated)
    moved = passes * model.n_layers * rows * _stream(config, mesh) * (n - 1) / n
    return moved + _sum(config, _gradients(config, mesh, False), n)


def _sequence(config: Config, mesh: MeshSizes) -> float:
    """Float32 keys and values on a tour forward, and backward with their gradients; the stream is
    brought into the ring's order and back; gradients are added."""
    model, n = config.model, mesh.sequence
    kv_split = mesh.tensor if model.kv_heads > 1 else 1
    tokens = config.train.batch_sequences * model.seq_len / mesh.tokens
    keys = 4 * tokens * 2 * model.kv_heads * model.d_head / kv_split
    tours = 1 + (config.compute.remat in REPEATING) + 2
    gradients = _gradients(config, mesh, False) + _gradients(config, mesh, True)
    reordered = 2 * _stream(config, mesh)
    return tours * n * keys * model.n_layers + reordered + _sum(config, gradients, n)


def _stream(config: Config, mesh: MeshSizes) -> float:
    """Bytes of the residual stream of a device's tokens, whole along tensor."""
    tokens = config.train.batch_sequences * config.model.seq_len / mesh.tokens
    return tokens * config.model.d_model * value_bytes(config)
