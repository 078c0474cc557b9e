"""The device mesh, and which tensor dims lie along which of its axes.

The only owner of mesh axis names. Models name the dims of parameters and activations logically;
`RULES` maps those names to mesh axes. Separate names for parameters and activations keep one mesh
axis from being claimed twice in a tensor. Must not import flax.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gpt_jax.config import Config, MeshConfig, ModelConfig

MESH_AXES = ("data", "fsdp", "tensor")
TRIAL_AXIS = "trial"
"""In front of the others in the mesh of a packed sweep: along it lie trials, not parts of one."""

Axes = tuple[str | None, ...]
"""Logical names of a tensor's dims; None = never split."""

RULES: dict[str, tuple[str, ...]] = {
    # parameters
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layer": (),
    # activations
    "act_batch": ("data", "fsdp"),
    "act_seq": (),
    "act_stream_seq": ("tensor",),  # of the residual stream, between the sub-blocks
    "act_embed": (),
    "act_looked_up": ("tensor",),  # the width of embeddings, while rows are looked up
    "act_heads": ("tensor",),
    "act_kv_heads": ("tensor",),
    "act_mlp": ("tensor",),
    "act_vocab": ("tensor",),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh with the rules that place logical dims on it."""

    mesh: Mesh
    replicated: frozenset[str] = frozenset()
    """Logical dims that are not split in this layout, whatever the rules say."""

    def spec(self, axes: Axes) -> PartitionSpec:
        """Logical names of a tensor's dims -> its PartitionSpec on the mesh."""
        parts = [() if a is None or a in self.replicated else RULES[a] for a in axes]
        return PartitionSpec(*[p[0] if len(p) == 1 else p or None for p in parts])

    def sharding(self, axes: Axes) -> NamedSharding:
        return NamedSharding(self.mesh, self.spec(axes))

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """`x`, held to the sharding of its logical dims; for use inside jit."""
        return jax.lax.with_sharding_constraint(x, self.sharding(axes))

    def constrain_stream(self, x_BTD: jax.Array) -> jax.Array:
        """The residual stream: its sequences lie along tensor too, where that divides them.

        What is kept for the backward pass is then no larger for being tensor parallel, and norms
        are not computed by every tensor shard (Korthikanti et al. 2022, section 4.2.2).
        """
        return self.constrain_even(x_BTD, "act_batch", "act_stream_seq", "act_embed")

    def constrain_even(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """`constrain`, with the dims whole that do not divide."""
        sizes = zip(axes, x.shape, strict=True)
        return self.constrain(x, *[a if a and n % self.n_parts(a) == 0 else None for a, n in sizes])

    def n_parts(self, axis: str) -> int:
        """The number of parts that a dim of this logical name is split into."""
        rule = () if axis in self.replicated else RULES[axis]
        return math.prod(self.mesh.shape[a] for a in rule)

    def shardings(self, axes_tree: Any) -> Any:
        """A tree of `Axes` tuples -> the same tree of NamedShardings."""
        return jax.tree.map(self.sharding, axes_tree, is_leaf=is_axes)

    @property
    def everywhere(self) -> NamedSharding:
        """A copy on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """[B, T] arrays of a batch."""
        return self.sharding(("act_batch", "act_seq"))

    @property
    def batches(self) -> NamedSharding:
        """[K, B, T] arrays of the batches of several steps."""
        return self.sharding((None, "act_batch", "act_seq"))

    @property
    def batch_parts(self) -> int:
        """The number of parts that the batch dim is split into."""
        return math.prod(self.mesh.shape[a] for a in RULES["act_batch"])


def stack_layout(layout: Layout, devices: Sequence[jax.Device], n_parts: int) -> Layout:
    """The layout of several models at once: `layout`, n_parts times over, along a trial axis."""
    shape = tuple(layout.mesh.shape[axis] for axis in MESH_AXES)
    mesh = jax.make_mesh(
        (n_parts, *shape),
        (TRIAL_AXIS, *MESH_AXES),
        axis_types=(AxisType.Auto,) * (1 + len(MESH_AXES)),
        devices=devices,
    )
    return Layout(mesh, layout.replicated)


def stacked(sharding: NamedSharding) -> NamedSharding:
    """Of an array with the trial dim in front of those of `sharding`."""
    return NamedSharding(sharding.mesh, PartitionSpec(TRIAL_AXIS, *sharding.spec))


def is_axes(x: Any) -> bool:
    """Whether x is an `Axes` tuple, a leaf of a tree of logical names."""
    return isinstance(x, tuple) and all(a is None or isinstance(a, str) for a in x)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a config over all devices, or over those given.

    Axes are Auto: the compiler propagates shardings from the constraints.
    Raises ValueError when the axis sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    n_devices, fixed = len(devices), config.fsdp * config.tensor
    data = n_devices // fixed if config.data == -1 else config.data
    if data * fixed != n_devices:
        shown = "the rest" if config.data == -1 else config.data
        fits = ", ".join(
            f"{n_devices // other}x{f}x{t}" for f, t, other in _factors(n_devices) if other
        )
        raise ValueError(
            f"mesh.data x mesh.fsdp x mesh.tensor = {shown} x {config.fsdp} x {config.tensor} does "
            f"not make up {n_devices} device{'s' * (n_devices != 1)}; what does: {fits}"
        )
    shape = (data, config.fsdp, config.tensor)
    axis_types = (AxisType.Auto,) * len(MESH_AXES)
    try:
        return jax.make_mesh(shape, MESH_AXES, axis_types=axis_types, devices=devices)
    except NotImplementedError:  # of a TPU's torus: an axis that is no product of its dims
        split = create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(split, MESH_AXES, axis_types=axis_types)


def make_layout(config: Config, devices: Sequence[jax.Device] | None = None) -> Layout:
    """The layout of a config, after checking that every split dim divides.

    The one key and value head of multi-query attention is held by every tensor shard; everything
    else must divide. Raises ValueError naming the two numbers.
    """
    mesh = make_mesh(config.mesh, devices)
    model = config.model
    replicated = {"kv_heads", "act_kv_heads"} if model.kv_heads == 1 else set()
    layout = Layout(mesh, frozenset(replicated))
    _check_divides(model, layout)
    sizes = {config.train.batch_sequences, config.train.ramp_from_sequences or 0}
    for sequences in sizes - {0}:
        _divide(
            sequences // config.compute.microbatches,
            "sequences in a batch (train.batch_sequences or train.ramp_from_sequences, divided by "
            "compute.microbatches)",
            layout.batch_parts,
            "mesh.data x mesh.fsdp",
        )
    return layout


def _check_divides(model: ModelConfig, layout: Layout) -> None:
    tensor, fsdp = layout.mesh.shape["tensor"], layout.mesh.shape["fsdp"]
    _divide(model.n_heads, "model.n_heads", tensor, "mesh.tensor")
    if "kv_heads" not in layout.replicated:
        _divide(model.kv_heads, "model.n_kv_heads", tensor, "mesh.tensor")
    _divide(model.d_ff, "model.ffn_size", tensor, "mesh.tensor")
    _divide(
        model.padded_vocab_size,
        "the padded model.vocab_size (see model.vocab_multiple)",
        tensor,
        "mesh.tensor",
    )
    _divide(model.d_model, "model.d_model", fsdp, "mesh.fsdp")


def _divide(value: int, name: str, parts: int, parts_name: str) -> None:
    if value % parts:
        raise ValueError(f"{name} = {value} is not divisible by {parts_name} = {parts}")


def _factors(n: int) -> list[tuple[int, int, int]]:
    """(fsdp, tensor, their product) for the meshes worth proposing for n devices."""
    options = [(1, 1), (n, 1), (1, n)]
    options += [(f, n // f // 2) for f in (2, 4, 8) if n % (2 * f) == 0 and n // f // 2 > 1]
    return [(f, t, f * t) for f, t in dict.fromkeys(options) if n % (f * t) == 0]
