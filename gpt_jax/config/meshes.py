"""Sizes of the mesh: what a config asks of a number of devices, what does not divide, what would.

Arithmetic alone: `gpt_jax.parallel.sharding` makes the mesh. Must not import jax.
"""

import dataclasses
import math

from gpt_jax.config import Config, MeshConfig

FIELDS = {
    "slice": "slices",
    "data": "data",
    "fsdp": "fsdp",
    "expert": "expert",
    "sequence": "sequence",
    "tensor": "tensor",
}
"""Mesh axis -> its field of MeshConfig; the slowest network is needed along the first."""

BATCH_AXES = ("slice", "data", "fsdp", "expert")
"""Mesh axes along which the batch lies."""

Sizes = dict[str, int]
"""Devices along each mesh axis."""


def axis_sizes(mesh: MeshConfig, n_devices: int) -> Sizes:
    """Devices along each axis, in the order of the mesh. Raises ValueError if they do not fit."""
    sizes = asked(mesh)
    free = mesh.data == -1
    shown = {a: s for a, s in sizes.items() if (s != 1 or a == "data") and not (free and s == -1)}
    product = math.prod(shown.values())
    names = " x ".join(f"mesh.{FIELDS[axis]}" for axis in shown) or "mesh.data"
    numbers = " x ".join(map(str, shown.values()))
    numbers = f"{numbers} = {product}" if len(shown) > 1 else numbers
    devices = f"{n_devices} device{'s' * (n_devices != 1)}"
    if free and n_devices % product:
        raise ValueError(f"{names} = {numbers} does not divide {devices}")
    if not free and product != n_devices:
        raise ValueError(f"{names} = {numbers} does not make up {devices}")
    return sizes | ({"data": n_devices // product} if free else {})


def batch_parts(sizes: Sizes) -> int:
    """The number of parts that the batch dim is split into."""
    return math.prod(sizes[axis] for axis in BATCH_AXES)


def obstacle(config: Config, n_devices: int) -> str:
    """Why the config's mesh and batch do not fit so many devices; empty if they do."""
    try:
        return why_not(config, axis_sizes(config.mesh, n_devices))
    except ValueError as error:
        return str(error)


def asked(mesh: MeshConfig) -> Sizes:
    values = dataclasses.asdict(mesh)
    return {axis: values[field] for axis, field in FIELDS.items()}


def why_not(config: Config, sizes: Sizes) -> str:
    """The first dim that does not divide, and by what; empty if all do."""
    model, tensor, sequence = config.model, sizes["tensor"], sizes["sequence"]
    if sizes["expert"] > 1 and model.n_experts is None:
        return f"mesh.expert = {sizes['expert']} needs a model with experts (model.n_experts)"
    if sequence > 1 and model.expert_capacity is not None:
        return (
            f"mesh.sequence = {sequence} with model.expert_capacity_factor = "
            f"{model.expert_capacity_factor}: places with an expert are given along a whole "
            f"sequence; set model.expert_capacity_factor = none or mesh.sequence = 1"
        )
    rows = [
        (model.n_heads, "model.n_heads", tensor, "mesh.tensor"),
        (model.d_ff, "model.ffn_size", tensor, "mesh.tensor"),
        (
            model.padded_vocab_size,
            "the padded model.vocab_size (see model.vocab_multiple)",
            tensor,
            "mesh.tensor",
        ),
        (model.d_model, "model.d_model", sizes["fsdp"], "mesh.fsdp"),
    ]
    if model.kv_heads != 1:
        rows.insert(1, (model.kv_heads, "model.n_kv_heads", tensor, "mesh.tensor"))
    if sequence > 1:
        halves = "2 x mesh.sequence (ring attention gives each device two chunks)"
        rows.insert(0, (model.seq_len, "model.seq_len", 2 * sequence, halves))
    if sizes["expert"] > 1:
        rows.append((model.n_experts or 1, "model.n_experts", sizes["expert"], "mesh.expert"))
    batch = "train.batch_sequences", config.train.batch_sequences
    first = "train.ramp_from_sequences", config.train.ramp_from_sequences
    for name, sequences in (batch, first):
        if sequences is not None:
            parts = config.compute.microbatches
            name += f" / compute.microbatches = {sequences} / {parts}" if parts > 1 else ""
            given = [a for a in BATCH_AXES if sizes[a] > 1 or a in ("data", "fsdp")]
            axes = " x ".join(f"mesh.{FIELDS[axis]}" for axis in given)
            rows.append((sequences // parts, name, batch_parts(sizes), axes))
    for value, name, divisor, by in rows:
        if value % divisor:
            return f"{name} = {value} is not divisible by {by} = {divisor}"
    return ""
