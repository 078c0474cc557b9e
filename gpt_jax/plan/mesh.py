"""A config's mesh on a number of devices, and why it may not fit. Must not import jax."""

import dataclasses

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
    """The config's mesh on so many devices; ValueError where `obstacle` finds one."""
    problem = obstacle(config, n_devices)
    if problem:
        raise ValueError(problem)
    mesh = config.mesh
    data = n_devices // (mesh.fsdp * mesh.tensor) if mesh.data == -1 else mesh.data
    return MeshSizes(data, mesh.fsdp, mesh.tensor)


def obstacle(config: Config, n_devices: int) -> str:
    """Why the config's mesh and batch cannot be laid out on these devices; empty if they can.

    The common part of what `gpt_jax.sharding.make_layout` checks, without jax.
    """
    mesh, model, n = config.mesh, config.model, n_devices
    fixed = mesh.fsdp * mesh.tensor
    data = n // fixed if mesh.data == -1 else mesh.data
    if data * fixed != n:
        return (
            f"mesh.data x mesh.fsdp x mesh.tensor = {mesh.data} x {mesh.fsdp} x {mesh.tensor} "
            f"does not make up {n} device{'s' * (n != 1)}"
        )
    sequences = config.train.batch_sequences // config.compute.microbatches
    kv_tensor = mesh.tensor if model.kv_heads > 1 else 1
    for value, what, parts, axes in (
        (sequences, "a microbatch of sequences", data * mesh.fsdp, "mesh.data x mesh.fsdp"),
        (model.d_model, "model.d_model", mesh.fsdp, "mesh.fsdp"),
        (model.n_heads, "model.n_heads", mesh.tensor, "mesh.tensor"),
        (model.kv_heads, "model.n_kv_heads", kv_tensor, "mesh.tensor"),
        (model.d_ff, "model.ffn_size", mesh.tensor, "mesh.tensor"),
        (model.padded_vocab_size, "the padded vocabulary", mesh.tensor, "mesh.tensor"),
    ):
        if value % parts:
            return f"{what} = {value} is not divisible by {axes} = {parts}"
    return ""
