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
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gpt_jax.config import Config, MeshConfig, meshes

MESH_AXES = tuple(meshes.FIELDS)
SEQUENCE_AXIS = "sequence"
EXPERT_AXIS = "expert"
"""Only in meshes with several devices along it: those of other models are what they were."""
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
    "expert": (EXPERT_AXIS,),
    # activations
    "act_batch": meshes.BATCH_AXES,
    "act_seq": (SEQUENCE_AXIS,),
    "act_stream_seq": (SEQUENCE_AXIS, "tensor"),  # between sub-blocks: norms and residuals
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
        parts = [self.mesh_axes(axis) for axis in axes]
        return PartitionSpec(*[p[0] if len(p) == 1 else p or None for p in parts])

    def mesh_axes(self, axis: str | None) -> tuple[str, ...]:
        """The mesh axes that a dim of this logical name lies along."""
        rule = () if axis is None or axis in self.replicated else RULES[axis]
        return tuple(a for a in rule if a in self.mesh.shape)

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
        divides = x_BTD.shape[1] % self.n_parts("act_stream_seq") == 0
        sequence = "act_stream_seq" if divides else "act_seq"
        return self.constrain_even(x_BTD, "act_batch", sequence, "act_embed")

    def constrain_even(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """`constrain`, with the dims whole that do not divide."""
        sizes = zip(axes, x.shape, strict=True)
        return self.constrain(x, *[a if a and n % self.n_parts(a) == 0 else None for a, n in sizes])

    def n_parts(self, axis: str) -> int:
        """The number of parts that a dim of this logical name is split into."""
        return math.prod(self.mesh.shape[a] for a in self.mesh_axes(axis))

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
    def sequence_parts(self) -> int:
        """The number of parts that the sequence dim is split into."""
        return self.n_parts("act_seq")

    @property
    def batch_parts(self) -> int:
        """The number of parts that the batch dim is split into."""
        return self.n_parts("act_batch")


def stack_layout(layout: Layout, devices: Sequence[jax.Device], n_parts: int) -> Layout:
    """The layout of several models at once: `layout`, n_parts times over, along a trial axis."""
    shape = layout.mesh.shape
    mesh = jax.make_mesh(
        (n_parts, *shape.values()),
        (TRIAL_AXIS, *shape),
        axis_types=(AxisType.Auto,) * (1 + len(shape)),
        devices=devices,
    )
    return Layout(mesh, layout.replicated)


def stacked(sharding: NamedSharding) -> NamedSharding:
    """Sharding of arrays with an additional leading trial dim, split over the trial axis."""
    return NamedSharding(sharding.mesh, PartitionSpec(TRIAL_AXIS, *sharding.spec))


def is_axes(x: Any) -> bool:
    """Whether x is an `Axes` tuple, a leaf of a tree of logical names."""
    return isinstance(x, tuple) and all(a is None or isinstance(a, str) for a in x)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a config over all devices, or over those given.

    Axes are Auto: the compiler propagates shardings from the constraints. With several slices, the
    devices of each lie together: by their slice index (TPU), else by process, else in order.
    Raises ValueError when the axis sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = meshes.axis_sizes(config, len(devices))
    axes = tuple(axis for axis in MESH_AXES if axis != EXPERT_AXIS or sizes[axis] > 1)
    each = {axis: sizes[axis] for axis in axes[1:]}
    grids = [_grid(each, part) for part in _slices(devices, config.slices)]
    return Mesh(np.stack(grids), axes, axis_types=(AxisType.Auto,) * len(axes))


def _grid(sizes: meshes.Sizes, devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices of one slice in the shape of its axes, neighbours along an axis near each other."""
    shape, types = tuple(sizes.values()), (AxisType.Auto,) * len(sizes)
    try:
        return jax.make_mesh(shape, tuple(sizes), axis_types=types, devices=devices).devices
    except NotImplementedError:  # of a TPU's torus: an axis that is no product of its dims
        return create_device_mesh(shape, devices, allow_split_physical_axes=True)


def _slices(devices: Sequence[jax.Device], n_slices: int) -> list[list[jax.Device]]:
    """The devices of each slice. Raises ValueError if the hardware is in another number of them."""
    if n_slices == 1:
        return [list(devices)]
    known = all(hasattr(device, "slice_index") for device in devices)  # TPU and GPU
    indices = {device.slice_index for device in devices} if known else set()
    if len(indices) > 1 and len(indices) != n_slices:
        raise ValueError(
            f"mesh.slices = {n_slices}, but the devices are in {len(indices)} slices; "
            f"set mesh.slices = {len(indices)}, or 1 for one mesh over all"
        )

    def place(device: jax.Device) -> tuple[int, int, int]:
        of_slice = device.slice_index if len(indices) > 1 else 0
        return of_slice, device.process_index, device.id

    ordered = sorted(devices, key=place)
    each = len(devices) // n_slices
    return [ordered[i * each : (i + 1) * each] for i in range(n_slices)]


def make_layout(config: Config, devices: Sequence[jax.Device] | None = None) -> Layout:
    """The layout of a config, after checking that every split dim divides.

    Raises ValueError naming the two numbers, and the nearest meshes that fit.
    """
    devices = jax.devices() if devices is None else list(devices)
    if meshes.obstacle(config, len(devices)):
        from gpt_jax.config import mesh_sizes

        mesh_sizes.check(config, len(devices))  # raises, and names the meshes that fit
    replicated = {"kv_heads", "act_kv_heads"} if config.model.kv_heads == 1 else set()
    return Layout(make_mesh(config.mesh, devices), frozenset(replicated))
