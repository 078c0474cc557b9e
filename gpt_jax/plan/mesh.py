"""A config's mesh, as plans know it. Must not import jax."""

import dataclasses

from gpt_jax import meshes, overrides
from gpt_jax.config import Config
from gpt_jax.plan.topology import Topology


@dataclasses.dataclass(frozen=True)
class MeshSizes:
    """Devices along each mesh axis."""

    data: int
    fsdp: int
    tensor: int
    expert: int = 1
    sequence: int = 1
    slices: int = 1

    @property
    def batch(self) -> int:
        """Parts of a batch."""
        return self.slices * self.data * self.fsdp * self.expert

    @property
    def tokens(self) -> int:
        """Parts of the tokens of a batch."""
        return self.batch * self.sequence

    @property
    def params(self) -> int:
        """Parts of a parameter; one of experts is besides split in `expert` parts."""
        return self.fsdp * self.tensor

    @property
    def n_devices(self) -> int:
        return self.tokens * self.tensor

    def shown(self) -> str:
        """data 1 x fsdp 64 x tensor 8; other axes where they have several devices."""
        always = ("data", "fsdp", "tensor")
        sizes = dataclasses.asdict(self).items()
        return " x ".join(f"{name} {n}" for name, n in sizes if n > 1 or name in always)


def mesh_sizes(config: Config, topology: Topology) -> MeshSizes:
    """The config's mesh on a topology, for its full batch: a ramp's own are not planned.

    Raises ValueError where it does not fit.
    """
    slices = config.mesh.slices
    if topology.chip.backend == "tpu" and slices != topology.slices:
        raise ValueError(
            f"mesh.slices = {slices}, but {topology.name} is {topology.slices} "
            f"slice{'s' * (topology.slices != 1)}; set mesh.slices = {topology.slices}, or plan "
            f"--topology {dataclasses.replace(topology, slices=slices).name}"
        )
    sizes = meshes.check(without_ramp(config), topology.n_devices)
    return MeshSizes(**{meshes.FIELDS[axis]: size for axis, size in sizes.items()})


def without_ramp(config: Config) -> Config:
    """The config whose every batch is whole: the ramp's first batches may be too small."""
    return overrides.override(config, {"train.ramp_from_sequences": None, "train.ramp_tokens": 0})
