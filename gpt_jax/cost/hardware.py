"""Accelerators: peak FLOP/s, memory, bandwidth and interconnect as their vendors publish them.

The peaks are for dense products: NVIDIA prints twice as much "with sparsity". A new chip is one
more entry in `CHIPS`. Shared by the MFU of a run, `gpt-jax plan` and `gpt-jax sweep plan`. Must not
import jax at import time.
"""

import dataclasses
from collections.abc import Mapping

from gpt_jax.hints import did_you_mean

TERA, GIGA, GIBI = 1e12, 1e9, 2.0**30


@dataclasses.dataclass(frozen=True)
class Interconnect:
    """Network between the chips of one training run. Bytes/s, in one direction."""

    bandwidth: float
    """Bandwidth of one chip over all its links to other chips: half of a bidirectional figure."""
    dims: int
    """2 or 3: of the torus that a TPU's links make, an even share of them each; 0: all chips of a
    domain reach each other at the full bandwidth (NVLink)."""
    domain: int | None
    """Chips that it joins; None: a whole TPU slice."""
    network: float
    """One chip's share of the network beyond the domain, or between slices; 0 if no source
    gives it."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, as jax counts devices: of a chip that it counts as two, one half."""

    name: str
    device_kinds: tuple[str, ...]
    """Its values of `jax.Device.device_kind`."""
    peak_flops: Mapping[str, float]
    """FLOP/s of dense products by operand type. float32 is what XLA's default precision runs:
    bfloat16 passes on a TPU, TF32 on a GPU."""
    memory_bytes: float
    bandwidth: float
    """Bytes/s between the chip and its memory."""
    interconnect: Interconnect
    source: str
    """Reference for peaks, memory and bandwidth."""
    interconnect_source: str
    devices_per_chip: int = 1
    """Devices that jax counts for one chip, as it is sold and priced."""

    @property
    def backend(self) -> str:
        """tpu or gpu."""
        return "tpu" if self.name.startswith("tpu") else "gpu"

    def peak(self, dtype: str) -> float:
        """FLOP/s of dense products of this type; ValueError if none is published."""
        if dtype not in self.peak_flops:
            raise ValueError(
                f"no peak of {self.name} for {dtype} operands; known: {', '.join(self.peak_flops)}"
            )
        return self.peak_flops[dtype]


TPU_V4 = {"bfloat16": 275, "float32": 275, "int8": 275}
TPU_V5E = {"bfloat16": 197, "float32": 197, "int8": 393}
TPU_V5P = {"bfloat16": 459, "float32": 459, "int8": 918}
TPU_V6E = {"bfloat16": 918, "float32": 918, "int8": 1836}
TPU_7X = {"bfloat16": 2307, "float32": 2307, "float8": 4614}
AMPERE = {"bfloat16": 312, "float32": 156, "int8": 624}
HOPPER_SXM = {"bfloat16": 989.4, "float32": 494.7, "int8": 1978.9, "float8": 1978.9}
HOPPER_PCIE = {"bfloat16": 756, "float32": 378, "int8": 1513, "float8": 1513}
BLACKWELL = {"bfloat16": 2250, "float32": 1100, "int8": 4500, "float8": 4500}

GOOGLE = "https://docs.cloud.google.com/tpu/docs/"
A100 = "NVIDIA A100 Tensor Core GPU datasheet (2021)"
H100 = "NVIDIA H100 Tensor Core GPU datasheet (2023), half of the values with sparsity"
H200 = "NVIDIA H200 Tensor Core GPU datasheet (2024), half of the values with sparsity"
B200 = "NVIDIA HGX B200 datasheet (2024), dense values of one of eight GPUs at 1,000 W"
V4_LINKS = "Jouppi et al. 2023, TPU v4 (arXiv:2304.01433), Table 4: 6 links of 50 GB/s"
TORUS = (
    "half of 'bidirectional ICI bandwidth per chip', and the data center network's, in " + GOOGLE
)
DGX_A100 = "NVIDIA DGX A100 datasheet: NVLink 600 GB/s both ways; 8 x 200 Gb/s for 8 GPUs"
DGX_H100 = "NVIDIA DGX H100 and H200 datasheets: NVLink 900 GB/s both ways; 8 x 400 Gb/s for 8 GPUs"
DGX_B200 = "NVIDIA DGX B200 datasheet: NVLink 1.8 TB/s both ways; 8 x 400 Gb/s for 8 GPUs"

A100_40GB_KINDS = (
    "NVIDIA A100-SXM4-40GB",
    "NVIDIA A100-PCIE-40GB",
    "A100-SXM4-40GB",
    "A100-PCIE-40GB",
)
A100_80GB_KINDS = ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB")


def _tpu(
    version: str,
    kinds: tuple[str, ...],
    tflops: Mapping[str, float],
    memory_gib: float,
    bandwidth: float,
    links: tuple[float, int, float],
    links_source: str,
    devices_per_chip: int = 1,
) -> Chip:
    """A TPU: TFLOP/s, GiB, GB/s; links: (one way, torus dims, one way between slices)."""
    share = 1 / devices_per_chip
    return Chip(
        name=f"tpu_{version}",
        device_kinds=kinds,
        peak_flops={dtype: value * TERA * share for dtype, value in tflops.items()},
        memory_bytes=memory_gib * GIBI * share,
        bandwidth=bandwidth * GIGA * share,
        interconnect=Interconnect(links[0] * GIGA * share, links[1], None, links[2] * GIGA * share),
        source=f"{GOOGLE}{'tpu7x' if version == 'v7x' else version}",
        interconnect_source=links_source,
        devices_per_chip=devices_per_chip,
    )


def _gpu(
    name: str,
    kinds: tuple[str, ...],
    tflops: Mapping[str, float],
    memory: float,
    bandwidth: float,
    links: tuple[float, int, float],
    sources: tuple[str, str],
) -> Chip:
    """A GPU: TFLOP/s, GB and GB/s; links: (one way, GPUs of a domain, network one way)."""
    return Chip(
        name=name,
        device_kinds=kinds,
        peak_flops={dtype: value * TERA for dtype, value in tflops.items()},
        memory_bytes=memory * GIGA,
        bandwidth=bandwidth * GIGA,
        interconnect=Interconnect(links[0] * GIGA, 0, links[1], links[2] * GIGA),
        source=sources[0],
        interconnect_source=sources[1],
    )


AMPERE_LINKS, HOPPER_LINKS = (300, 8, 25), (450, 8, 50)
PCIE = "the datasheet's PCI Express, half of both ways; as DGX beyond a host"

CHIPS: tuple[Chip, ...] = (
    _tpu("v4", ("TPU v4",), TPU_V4, 32, 1200, (300, 3, 0), V4_LINKS),
    _tpu("v5e", ("TPU v5 lite", "TPU v5e"), TPU_V5E, 16, 819, (200, 2, 3.125), f"{TORUS}v5e"),
    _tpu("v5p", ("TPU v5", "TPU v5p"), TPU_V5P, 95, 2765, (600, 3, 6.25), f"{TORUS}v5p"),
    _tpu("v6e", ("TPU v6 lite", "TPU v6e"), TPU_V6E, 32, 1638, (400, 2, 12.5), f"{TORUS}v6e"),
    _tpu("v7x", ("TPU7x", "TPU v7x"), TPU_7X, 192, 7380, (600, 3, 12.5), f"{TORUS}tpu7x", 2),
    _gpu("a100_40gb", A100_40GB_KINDS, AMPERE, 40, 1555, AMPERE_LINKS, (A100, DGX_A100)),
    _gpu("a100_80gb", A100_80GB_KINDS, AMPERE, 80, 2039, AMPERE_LINKS, (A100, DGX_A100)),
    _gpu("a100_80gb_pcie", ("NVIDIA A100 80GB PCIe",), AMPERE, 80, 1935, (32, 8, 25), (A100, PCIE)),
    _gpu("h100", ("NVIDIA H100 80GB HBM3",), HOPPER_SXM, 80, 3350, HOPPER_LINKS, (H100, DGX_H100)),
    _gpu("h100_pcie", ("NVIDIA H100 PCIe",), HOPPER_PCIE, 80, 2000, (64, 8, 50), (H100, PCIE)),
    _gpu("h200", ("NVIDIA H200",), HOPPER_SXM, 141, 4800, HOPPER_LINKS, (H200, DGX_H100)),
    _gpu("b200", ("NVIDIA B200",), BLACKWELL, 180, 8000, (900, 8, 50), (B200, DGX_B200)),
)


def chip(name: str) -> Chip:
    """The chip of this name, a TPU's also without tpu_; ValueError with the nearest if unknown."""
    known = {entry.name: entry for entry in CHIPS}
    for spelt in (name, f"tpu_{name}"):
        if spelt in known:
            return known[spelt]
    short = [k.removeprefix("tpu_") for k in known]
    raise ValueError(
        f"unknown chip '{name}'; known: {', '.join(known)} (add others to CHIPS in "
        f"gpt_jax/cost/hardware.py){did_you_mean(name, [*known, *short], most=2)}"
    )


def identify(device_kind: str) -> Chip | None:
    """The chip that jax calls `device_kind`, or None: a peak is never guessed."""
    return next((entry for entry in CHIPS if device_kind in entry.device_kinds), None)
