"""Accelerators: peak FLOP/s, memory and bandwidth as their vendors publish them.

The peaks are for dense products: NVIDIA prints twice as much "with sparsity". A new chip is one
more entry in `CHIPS`. Must not import jax at import time.
"""

import dataclasses
import difflib
import functools
import time
from collections.abc import Mapping
from pathlib import Path

TERA, GIGA = 1e12, 1e9


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, as jax counts devices. Sizes are as printed (decimal units)."""

    name: str
    device_kinds: tuple[str, ...]
    """What `jax.Device.device_kind` says of it."""
    peak_flops: Mapping[str, float]
    """FLOP/s of dense products by operand type. float32 is what XLA's default precision runs:
    bfloat16 passes on a TPU, TF32 on a GPU."""
    memory_bytes: float
    bandwidth: float
    """Bytes/s between the chip and its memory."""
    source: str

    def peak(self, dtype: str) -> float:
        """FLOP/s of dense products of this type; ValueError if none is published."""
        if dtype not in self.peak_flops:
            raise ValueError(
                f"no peak of {self.name} for {dtype} operands; known: {', '.join(self.peak_flops)}"
            )
        return self.peak_flops[dtype]


def _entry(
    name: str,
    device_kinds: tuple[str, ...],
    tflops: Mapping[str, float],
    memory: float,
    bandwidth: float,
    source: str,
) -> Chip:
    """A row of the table: peaks in TFLOP/s, memory in GB, bandwidth in GB/s."""
    peaks = {dtype: value * TERA for dtype, value in tflops.items()}
    return Chip(name, device_kinds, peaks, memory * GIGA, bandwidth * GIGA, source)


TPU_V4 = {"bfloat16": 275, "float32": 275, "int8": 275}
TPU_V5E = {"bfloat16": 197, "float32": 197, "int8": 393}
TPU_V5P = {"bfloat16": 459, "float32": 459, "int8": 918}
TPU_V6E = {"bfloat16": 918, "float32": 918, "int8": 1836}
AMPERE = {"bfloat16": 312, "float32": 156, "int8": 624}
HOPPER_SXM = {"bfloat16": 989.4, "float32": 494.7, "int8": 1978.9, "float8": 1978.9}
HOPPER_PCIE = {"bfloat16": 756, "float32": 378, "int8": 1513, "float8": 1513}
BLACKWELL = {"bfloat16": 2250, "float32": 1100, "int8": 4500, "float8": 4500}

GOOGLE = "https://docs.cloud.google.com/tpu/docs/"
A100 = "NVIDIA A100 Tensor Core GPU datasheet (2021)"
H100 = "NVIDIA H100 Tensor Core GPU datasheet (2023), half of the values with sparsity"
H200 = "NVIDIA H200 Tensor Core GPU datasheet (2024), half of the values with sparsity"
B200 = "NVIDIA HGX B200 datasheet (2024), dense values of one of eight GPUs at 1,000 W"

A100_40GB_KINDS = (
    "NVIDIA A100-SXM4-40GB",
    "NVIDIA A100-PCIE-40GB",
    "A100-SXM4-40GB",
    "A100-PCIE-40GB",
)
A100_80GB_KINDS = ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB")

CHIPS: tuple[Chip, ...] = (
    _entry("tpu_v4", ("TPU v4",), TPU_V4, 34.36, 1200, f"{GOOGLE}v4 (32 GiB)"),
    _entry("tpu_v5e", ("TPU v5 lite", "TPU v5e"), TPU_V5E, 16, 819, f"{GOOGLE}v5e"),
    _entry("tpu_v5p", ("TPU v5", "TPU v5p"), TPU_V5P, 95, 2765, f"{GOOGLE}v5p"),
    _entry("tpu_v6e", ("TPU v6 lite", "TPU v6e"), TPU_V6E, 32, 1638, f"{GOOGLE}v6e"),
    _entry("a100_40gb", A100_40GB_KINDS, AMPERE, 40, 1555, A100),
    _entry("a100_80gb", A100_80GB_KINDS, AMPERE, 80, 2039, A100),
    _entry("a100_80gb_pcie", ("NVIDIA A100 80GB PCIe",), AMPERE, 80, 1935, A100),
    _entry("h100", ("NVIDIA H100 80GB HBM3",), HOPPER_SXM, 80, 3350, H100),
    _entry("h100_pcie", ("NVIDIA H100 PCIe",), HOPPER_PCIE, 80, 2000, H100),
    _entry("h200", ("NVIDIA H200",), HOPPER_SXM, 141, 4800, H200),
    _entry("b200", ("NVIDIA B200",), BLACKWELL, 180, 8000, B200),
)


def chip(name: str) -> Chip:
    """The chip of this name in the table; ValueError with the known names otherwise."""
    known = {entry.name: entry for entry in CHIPS}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1)
    hint = f", did you mean '{near[0]}'?" if near else ""
    raise ValueError(
        f"unknown chip '{name}'{hint}; known: {', '.join(known)} "
        f"(add others to CHIPS in gpt_jax/hardware.py)"
    )


def identify(device_kind: str) -> Chip | None:
    """The chip that jax calls `device_kind`, or None: a peak is never guessed."""
    return next((entry for entry in CHIPS if device_kind in entry.device_kinds), None)


BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of /proc/cpuinfo: instructions that multiply bfloat16 (x86-64; the last one, ARM)."""


@functools.cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products; where nothing says so, no.

    Without them a bfloat16 product is computed in float32, after converting.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = (line.split(":")[1] for line in lines if line.startswith(("flags", "Features")))
    return bool(BFLOAT16_FLAGS & set(next(flags, "").split()))


CPU_PRODUCT_SIZES = (512, 1024)
"""The larger keeps many cores busy; the smaller is over before another process interrupts it."""


def measured_cpu_peak(dtype: str, seconds: float = 0.1) -> float:
    """FLOP/s of the fastest square product on jax's CPU backend: the peak of a CPU's MFU.

    XLA's kernels come nowhere near the peak a CPU has on paper, so a CPU's MFU is relative to
    what its matrix products attain. That assumes an otherwise idle machine (other processes lower
    the peak and so raise the MFU), as many cores as XLA uses in training, and results in float32:
    a bfloat16 result would be computed at float32 speed.

    Args:
      dtype: type of the operands, float32 or bfloat16.
      seconds: how long to repeat the products, compilation aside.
    """
    import jax
    import jax.numpy as jnp

    cpu = jax.local_devices(backend="cpu")[0]
    product = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32))
    rates = []
    for size in CPU_PRODUCT_SIZES:
        operand = jax.device_put(jnp.ones((size, size), jnp.dtype(dtype)), cpu)
        product(operand).block_until_ready()
        stop = time.perf_counter() + seconds / len(CPU_PRODUCT_SIZES)
        while time.perf_counter() < stop:
            start = time.perf_counter()
            product(operand).block_until_ready()
            rates.append(2 * size**3 / (time.perf_counter() - start))
    return max(rates)
