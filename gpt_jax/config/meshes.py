"""Sizes of the mesh: what a config asks of a number of devices, what does not divide, what would.

Arithmetic alone: `gpt_jax.parallel.sharding` makes the mesh. Must not import jax.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

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

PROPOSED = 3
"""Meshes that are proposed in place of one that does not fit."""


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


def axis_sizes(mesh: MeshConfig, n_devices: int) -> Sizes:
    """Devices along each axis, in the order of the mesh. Raises ValueError if they do not fit."""
    sizes = _asked(mesh)
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


def least_devices(mesh: MeshConfig) -> int:
    """The number of devices that a mesh asks for, with one replica where mesh.data is open."""
    return math.prod(size for size in _asked(mesh).values() if size != -1)


def batch_parts(sizes: Sizes) -> int:
    """The number of parts that the batch dim is split into."""
    return math.prod(sizes[axis] for axis in BATCH_AXES)


def check(config: Config, n_devices: int) -> Sizes:
    """`axis_sizes`, after checking that every split dim divides.

    The one key and value head of multi-query attention is held by every tensor shard; everything
    else must divide. Raises ValueError naming the two numbers, and the nearest meshes that fit.
    """
    why = obstacle(config, n_devices)
    if not why:
        return axis_sizes(config.mesh, n_devices)
    near = [_text(sizes) for sizes in nearest(config, n_devices)]
    rest = f"; what fits: {', or '.join(near)}" if near else ""
    raise ValueError(why + rest)


def sizes_of(config: Config, n_devices: int) -> MeshSizes:
    """Devices along each axis, where the config fits so many. Raises ValueError as `check`."""
    return MeshSizes(**{FIELDS[axis]: size for axis, size in check(config, n_devices).items()})


def obstacle(config: Config, n_devices: int) -> str:
    """Why the config's mesh and batch do not fit so many devices; empty if they do."""
    try:
        return _obstacle(config, axis_sizes(config.mesh, n_devices))
    except ValueError as error:
        return str(error)


def nearest(config: Config, n_devices: int) -> list[Sizes]:
    """Meshes of all devices that fit the config, nearest first; axes of one device stay so if any.

    Near is a small sum of the logarithms of the factors by which axes change.
    """
    asked = _asked(config.mesh)
    varied = [axis for axis, size in asked.items() if size > 1 and axis != "data"]

    def distance(sizes: Sizes) -> tuple[float, ...]:
        changes = [abs(math.log(sizes[a] / size)) for a, size in asked.items() if size > 0]
        return sum(changes), *sizes.values()

    for axes in (varied, ["fsdp", "sequence", "tensor"]):
        fitting = [sizes for sizes in _meshes(n_devices, axes) if not _obstacle(config, sizes)]
        if fitting:
            return sorted(fitting, key=distance)[:PROPOSED]
    return []


def _asked(mesh: MeshConfig) -> Sizes:
    values = dataclasses.asdict(mesh)
    return {axis: values[field] for axis, field in FIELDS.items()}


def _meshes(n_devices: int, varied: list[str]) -> Iterator[Sizes]:
    """All ways to split n_devices over `varied` axes and data."""
    divisors = [d for d in range(1, n_devices + 1) if n_devices % d == 0]
    for chosen in itertools.product(divisors, repeat=len(varied)):
        product = math.prod(chosen)
        if n_devices % product == 0:
            given = dict(zip(varied, chosen, strict=True)) | {"data": n_devices // product}
            yield {axis: given.get(axis, 1) for axis in FIELDS}


def _obstacle(config: Config, sizes: Sizes) -> str:
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


def _text(sizes: Sizes) -> str:
    """As it is typed on the command line."""
    typed = [f"--mesh.{FIELDS[a]} {size}" for a, size in sizes.items() if size > 1 or a == "data"]
    return " ".join(typed)
