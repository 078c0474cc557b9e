"""Names of sets of chips: v5p:8x8x8, 2xv5p:4x4x4, h100:64. Must not import jax."""

import dataclasses
import math
import re

from gpt_jax.cost import hardware

PARTS_OF_A_HOST = {2: "2x2", 3: "2x2x1"}
"""The smallest slices that libtpu describes, by the number of dims."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips that work on one run together."""

    chip: hardware.Chip
    shape: tuple[int, ...]
    """Chips along each dim of a TPU slice's torus; for GPUs, (number of GPUs,)."""
    slices: int = 1
    """Number of TPU slices, joined by the data center's network; always 1 for GPUs."""

    @property
    def name(self) -> str:
        """As `parse_topology` reads it."""
        slices = f"{self.slices}x" if self.slices > 1 else ""
        return f"{slices}{self.chip.name.removeprefix('tpu_')}:{self.shape_name}"

    @property
    def shape_name(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def n_chips(self) -> int:
        return math.prod(self.shape) * self.slices

    @property
    def n_devices(self) -> int:
        """As jax counts them."""
        return self.n_chips * self.chip.devices_per_chip

    def axis_bandwidth(self, axis: int, outer: int = 1) -> float:
        """Bytes/s, one way, at which a device takes part in a collective over a mesh axis.

        A torus gives an axis its share of dims, by the logarithm of sizes, and one dim at least:
        an axis of 64 of 8 x 8 x 8 has two of the three dims' links. Within a domain of GPUs the
        bandwidth is NVLink's; an axis that reaches beyond it has the network's.

        axis: devices along the mesh axis; outer: devices that lie between two neighbours of it.
        """
        links = self.chip.interconnect
        if links.domain is not None:
            return links.bandwidth if axis * outer <= links.domain else links.network
        n_devices = self.n_devices // self.slices
        if axis <= 1 or n_devices <= 1:
            return links.bandwidth
        dims = max(1, sum(size > 1 for size in self.shape))
        share = max(1.0, dims * math.log(axis) / math.log(n_devices))
        return links.bandwidth / links.dims * min(share, dims)

    def slice_bandwidth(self, outer: int) -> float:
        """Bytes/s, one way, of a device in a collective over `mesh.slices`.

        outer: devices of a slice. Raises ValueError if no source gives it.
        """
        if self.chip.interconnect.domain is not None:
            return self.axis_bandwidth(2, outer)
        if not self.chip.interconnect.network:
            raise ValueError(
                f"{self.name}: no source gives the bandwidth between slices of {self.chip.name}; "
                f"plan one slice (mesh.slices = 1)"
            )
        return self.chip.interconnect.network


def parse_topology(text: str) -> Topology:
    """`CHIP:SIZE`, as in v5p:8x8x8 (a TPU slice), 2xv5p:4x4x4 (two of them) or h100:64.

    Raises ValueError for another form, an unknown chip, or a TPU slice of the wrong number of dims.
    """
    match = re.fullmatch(r"(?:(\d+)x)?([\w-]+):(\d+(?:x\d+)*)", text)
    if match is None:
        raise ValueError(
            f"--topology {text}; allowed: CHIP:SIZE, as in v5p:8x8x8, 2xv6e:16x16 or h100:64"
        )
    chip = hardware.chip(match[2])
    slices = int(match[1] or 1)
    shape = tuple(int(size) for size in match[3].split("x"))
    if 0 in (*shape, slices):
        raise ValueError(f"--topology {text}; each size is at least 1")
    dims = chip.interconnect.dims
    if chip.backend == "gpu" and (len(shape) > 1 or match[1]):
        raise ValueError(f"--topology {text}; of GPUs give their number, as in {match[2]}:64")
    if chip.backend == "tpu" and len(shape) != dims:
        raise ValueError(
            f"--topology {text}; a slice of {chip.name} has {dims} dims, as in "
            f"{match[2]}:{'x'.join(['4'] * dims)} (the smallest: {PARTS_OF_A_HOST[dims]})"
        )
    return Topology(chip, shape, slices)
