"""A config's mesh, as plans know it. Must not import jax."""

import dataclasses

from gpt_jax.config import Config, overrides
from gpt_jax.config.mesh_sizes import MeshSizes, sizes_of
from gpt_jax.cost.topology import Topology


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
    return sizes_of(without_ramp(config), topology.n_devices)


def without_ramp(config: Config) -> Config:
    """The config whose every batch is whole: the ramp's first batches may be too small."""
    return overrides.override(config, {"train.ramp_from_sequences": None, "train.ramp_tokens": 0})
