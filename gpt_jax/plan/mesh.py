"""A config's mesh, as far as plans know it. Must not import jax."""

import dataclasses

from gpt_jax import meshes, overrides
from gpt_jax.config import Config


@dataclasses.dataclass(frozen=True)
class MeshSizes:
    """Devices along each mesh axis."""

    data: int
    fsdp: int
    tensor: int

    @property
    def batch(self) -> int:
        """Parts of a batch."""
        return self.data * self.fsdp

    @property
    def params(self) -> int:
        """Parts of a parameter."""
        return self.fsdp * self.tensor

    @property
    def n_devices(self) -> int:
        return self.data * self.fsdp * self.tensor


def mesh_sizes(config: Config, n_devices: int) -> MeshSizes:
    """The config's mesh on so many devices, for its full batch: a ramp's own are not planned.

    Raises ValueError where it does not fit, or has an axis that plans do not know.
    """
    if config.model.n_experts is not None:
        raise ValueError(
            f"plans know no mixture of experts yet; model.n_experts is {config.model.n_experts}, "
            f"allowed: none"
        )
    sizes = meshes.check(without_ramp(config), n_devices)
    for axis in ("slice", "sequence"):
        if sizes[axis] > 1:
            field = meshes.FIELDS[axis]
            raise ValueError(f"plans know no mesh.{field} yet; it is {sizes[axis]}, allowed: 1")
    return MeshSizes(sizes["data"], sizes["fsdp"], sizes["tensor"])


def without_ramp(config: Config) -> Config:
    """The config whose every batch is whole: the ramp's first batches may be too small."""
    return overrides.override(config, {"train.ramp_from_sequences": None, "train.ramp_tokens": 0})
