"""Devices of a topology that is not here, as jax's compilers know them, and their speeds."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from importlib import metadata

import jax
from jax.experimental import topologies

from gpt_jax.cost.topology import Topology
from gpt_jax.plan.costs import Device
from gpt_jax.plan.gpu_target import TARGETS, target_config

PRODUCT_UNITS = {
    "tpu_v4": 8 * 128 * 128,
    "tpu_v5e": 4 * 128 * 128,
    "tpu_v5p": 8 * 128 * 128,
    "tpu_v6e": 4 * 256 * 256,
    "tpu_v7x": 4 * 256 * 256,
}
"""Multiply-adds of a device in a cycle. With the peak they give the clock in whose cycles the
compiler counts: 1.05 GHz for v4, 1.5 for v5e, 1.75 for v5p and v6e, 2.2 for tpu7x. Those of v6e
and tpu7x are twice what their pages count as units, or matmuls of compiled programs would exceed
the peak (`costs.Costs.flops_per_cycle`)."""
HOST_GPUS = 8
"""GPUs of a host."""


def describe(topology: Topology) -> list[jax.Device]:
    """The devices of a topology, which need not exist.

    Raises ValueError if the compiler for them is not installed or does not know them.
    """
    if topology.chip.backend == "tpu":
        return _describe_tpu(topology)
    return _describe_gpu(topology)


def _describe_tpu(topology: Topology) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("--compile needs libtpu, which is absent: pip install 'gpt-jax[tpu]'")
    # Or libtpu asks a metadata server, which answers on Google's machines alone, who it is.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Its lock is for the chips of a host: compiling for others, several processes may.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    name = f"{_libtpu_name(topology)}:{topology.shape_name}"
    try:
        with _quiet():
            found = topologies.get_topology_desc(
                platform="tpu",
                topology_name=name,
                # A v4's two cores as one device, as they are on a real one.
                **({"chip_config_name": "megacore"} if topology.chip.name == "tpu_v4" else {}),
                **({"num_slices": topology.slices} if topology.slices > 1 else {}),
            )
    except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"libtpu does not describe {topology.name}: {reason}") from None
    return list(found.devices)


def _libtpu_name(topology: Topology) -> str:
    version = topology.chip.name.removeprefix("tpu_")
    return "tpu7x" if version == "v7x" else version


PLUGIN = "jax-cuda12-plugin"
INSTALL_GPU = "pip install 'gpt-jax[gpu-plan]'"


def _describe_gpu(topology: Topology) -> list[jax.Device]:
    chip, n = topology.chip.name, topology.n_chips
    if chip not in TARGETS:
        raise ValueError(
            f"--compile knows no properties of {chip}; known: {', '.join(TARGETS)} (add others to "
            f"TARGETS in gpt_jax/plan/gpu_target.py)"
        )
    if n > HOST_GPUS and n % HOST_GPUS:
        raise ValueError(
            f"--compile takes up to {HOST_GPUS} GPUs or whole hosts of {HOST_GPUS}, not {n}"
        )
    _check_plugin()
    # Or jax looks for a driver when it loads the plugin.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    hosts = max(1, n // HOST_GPUS)
    with _quiet():
        found = topologies.get_topology_desc(
            platform="cuda",
            target_config=target_config(TARGETS[chip]),
            topology=f"1x{hosts}x{n // hosts}",
        )
    return list(found.devices)


def _check_plugin() -> None:
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise ValueError(f"--compile needs {PLUGIN}, which is absent: {INSTALL_GPU}")
    version = metadata.version(PLUGIN)
    if version != jax.__version__:
        raise ValueError(
            f"--compile needs {PLUGIN} of jax's version, {jax.__version__}, not {version}: "
            f"{INSTALL_GPU}"
        )


def has_cudnn() -> bool:
    """Whether cuDNN's library is installed, without which its attention is not compiled."""
    return (
        importlib.util.find_spec("nvidia") is not None
        and importlib.util.find_spec("nvidia.cudnn") is not None
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what a compiler's library writes to standard error, past Python, when it starts away
    from its devices."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


def clock(topology: Topology) -> float:
    """Cycles a second of a TPU."""
    chip = topology.chip
    return chip.peak("bfloat16") / (2 * PRODUCT_UNITS[chip.name])


def _link(topology: Topology, group: tuple[int, ...]) -> float:
    """Bytes/s of a device in a collective of these, by whether they are of one host or slice."""
    joined = topology.chip.interconnect.domain or topology.n_devices // topology.slices
    if len({device // joined for device in group}) == 1:
        return topology.axis_bandwidth(len(group))
    if topology.slices > 1:
        return topology.slice_bandwidth(joined)
    return topology.axis_bandwidth(len(group), outer=joined)


def speed(topology: Topology) -> Device:
    """How fast a device computes and sends."""
    chip = topology.chip
    return Device(
        peak=chip.peak("bfloat16"),
        bandwidth=chip.bandwidth,
        link=lambda group: _link(topology, group),
        clock=clock(topology) if chip.backend == "tpu" else None,
    )
