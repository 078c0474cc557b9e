"""This machine's CPU: whether it multiplies bfloat16, and the peak that MFU is relative to.

Must not import jax at import time.
"""

import functools
import time
from pathlib import Path

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags in /proc/cpuinfo for bfloat16 multiplication (x86-64; the last one, ARM)."""


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
