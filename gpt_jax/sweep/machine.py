"""Machine that a plan is priced on: this one, or chips by name. Imports jax only when asked."""

import dataclasses
import functools
import os
from pathlib import Path

from gpt_jax.config import Config, mesh_sizes
from gpt_jax.cost import cpu_speed, flops, hardware
from gpt_jax.cost.memory import MEMORY_SHARE, Memory, estimate


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices that work on one trial together."""

    name: str
    backend: str
    """cpu, gpu or tpu."""
    n_devices: int
    memory_bytes: float | None
    """Memory of one device, or of the host that all CPU devices share; None if unknown."""
    chip: hardware.Chip | None
    """None for a CPU, and for a device that the table does not know."""

    def peak(self, config: Config) -> float | None:
        """FLOP/s of all devices for the config's operands, or None if unknown."""
        dtype = config.compute.dtype
        if dtype == "auto":
            dtype = "float32" if self.backend == "cpu" else "bfloat16"
        if self.chip is not None:
            return self.chip.peak(dtype) * self.n_devices
        return _cpu_peak(dtype) if self.backend == "cpu" else None

    @property
    def available_bytes(self) -> float | None:
        """Memory that a program may be planned to fill, on each device; None if unknown."""
        if self.memory_bytes is None:
            return None
        if self.backend == "cpu":  # the devices of a host share its memory
            return self.memory_bytes / self.n_devices
        return MEMORY_SHARE * self.memory_bytes

    def memory(self, config: Config) -> Memory:
        """Memory of a step on one device; the config fits (`obstacle`)."""
        return estimate(config, mesh_sizes.sizes_of(config, self.n_devices), self.backend)

    def seconds(self, config: Config, n_tokens: float, mfu: float) -> float | None:
        """Time to train on this many tokens at a model FLOPs utilization (PaLM's convention)."""
        peak = self.peak(config)
        if peak is None:
            return None
        return flops.training_flops_per_token(config.model, "palm") * n_tokens / (mfu * peak)

    def obstacle(self, config: Config) -> str:
        """Why the config's mesh and batch do not fit these devices; empty if they do."""
        try:
            mesh_sizes.check(config, self.n_devices)
        except ValueError as error:
            return str(error)
        return ""


def named_chips(name: str, n_devices: int) -> Machine:
    """n_devices chips of `gpt_jax.cost.hardware`; ValueError for an unknown name."""
    chip = hardware.chip(name)
    n = n_devices * chip.devices_per_chip
    return Machine(f"{n_devices} x {chip.name}", chip.backend, n, chip.memory_bytes, chip)


def this_machine() -> Machine:
    """The devices that jax finds here."""
    import jax

    devices = jax.devices()
    backend = devices[0].platform
    if backend == "cpu":
        return Machine(f"cpu, {os.cpu_count()} cores", "cpu", len(devices), host_memory(), None)
    chip = hardware.identify(devices[0].device_kind)
    memory = None if chip is None else chip.memory_bytes
    name = f"{len(devices)} x {devices[0].device_kind}"
    return Machine(name, backend, len(devices), memory, chip)


def host_memory() -> float:
    """Bytes of memory of this host, or of the container that this process is in."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return float(min(physical, int(text)) if text.isdigit() else physical)


@functools.cache
def _cpu_peak(dtype: str) -> float:
    """Measured once in a process."""
    return cpu_speed.measured_cpu_peak(dtype)
