"""Sizes of the mesh on a number of devices, and the meshes that would fit where one does not.

Must not import jax.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from gpt_jax.config import Config, MeshConfig
from gpt_jax.config.meshes import FIELDS, Sizes, asked, axis_sizes, obstacle, why_not

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


def least_devices(mesh: MeshConfig) -> int:
    """The number of devices that a mesh asks for, with one replica where mesh.data is open."""
    return math.prod(size for size in asked(mesh).values() if size != -1)


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


def nearest(config: Config, n_devices: int) -> list[Sizes]:
    """Meshes of all devices that fit the config, nearest first; axes of one device stay so if any.

    Near is a small sum of the logarithms of the factors by which axes change.
    """
    given = asked(config.mesh)
    varied = [axis for axis, size in given.items() if size > 1 and axis != "data"]

    def distance(sizes: Sizes) -> tuple[float, ...]:
        changes = [abs(math.log(sizes[a] / size)) for a, size in given.items() if size > 0]
        return sum(changes), *sizes.values()

    for axes in (varied, ["fsdp", "sequence", "tensor"]):
        fitting = [sizes for sizes in _meshes(n_devices, axes) if not why_not(config, sizes)]
        if fitting:
            return sorted(fitting, key=distance)[:PROPOSED]
    return []


def _meshes(n_devices: int, varied: list[str]) -> Iterator[Sizes]:
    """All ways to split n_devices over `varied` axes and data."""
    divisors = [d for d in range(1, n_devices + 1) if n_devices % d == 0]
    for chosen in itertools.product(divisors, repeat=len(varied)):
        product = math.prod(chosen)
        if n_devices % product == 0:
            given = dict(zip(varied, chosen, strict=True)) | {"data": n_devices // product}
            yield {axis: given.get(axis, 1) for axis in FIELDS}


def _text(sizes: Sizes) -> str:
    """As it is typed on the command line."""
    typed = [f"--mesh.{FIELDS[a]} {size}" for a, size in sizes.items() if size > 1 or a == "data"]
    return " ".join(typed)
