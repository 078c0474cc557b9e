"""The actual training step of a config, compiled for a TPU topology that is not here.

`jax.experimental.topologies` and libtpu (pip install 'gpt-jax[tpu]') describe the devices; the
state is abstract, so that nothing of the model's size is ever allocated. Layers are scanned, so
that compiling takes as long for any depth.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from gpt_jax.config import Config
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost.estimate import Plan, attention_flops_per_sequence
from gpt_jax.cost.mesh import without_ramp
from gpt_jax.cost.topology import Topology
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.parallel.sharding import Layout, make_layout
from gpt_jax.plan import hlo
from gpt_jax.steps.compiled_steps import CompiledSteps, compile_steps
from gpt_jax.steps.step import make_settings

PRODUCT_UNITS = {
    "tpu_v4": 8 * 128 * 128,
    "tpu_v5e": 4 * 128 * 128,
    "tpu_v5p": 8 * 128 * 128,
    "tpu_v6e": 2 * 256 * 256,
    "tpu_v7x": 2 * 256 * 256,
}
"""Multiply-adds of a device in a cycle, from the chips' pages: cores x units x their sizes. With
the peak they give the clock, in whose cycles the compiler counts."""
KERNEL_SHARE = 0.5
"""Assumed share of the peak that attention kernels attain: the compiler does not estimate it."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's figures for a training step on one device of a topology."""

    fits: bool
    argument_bytes: int
    """State and batch."""
    total_bytes: int
    """Bytes that the program reserves: arguments, and a buffer for everything else, gaps included.
    The compiler compares this figure with the device's memory."""
    peak_bytes: int
    """Arguments and temporaries that are alive at one time."""
    summed_temporary_bytes: int
    """`temp_size_in_bytes` of jax's `memory_analysis`, which others publish: up to several times
    the buffer that is reserved, and a program with more of it than the device's memory compiles."""
    once_flops: float
    """The compiler's own count: each loop's body once."""
    once_bytes: float
    once_seconds: float
    costs: hlo.Costs
    """Each loop's body as often as it runs."""
    cycle_seconds: float
    """Time of costs.cycles, operations run one after another; collectives overlap with them."""
    kernel_seconds: float
    """Assumed time of attention kernels, by KERNEL_SHARE; 0 without splash attention."""
    compile_seconds: float
    attention: str
    message: str = ""
    """Why it does not fit."""

    @property
    def temporary_bytes(self) -> int:
        return self.total_bytes - self.argument_bytes

    @property
    def step_seconds(self) -> float:
        return self.cycle_seconds + self.kernel_seconds


def compile_plan(plan: Plan) -> Compiled:
    """Lower and compile the training step of a plan's config for its topology.

    Raises ValueError if libtpu is missing or does not know the topology, or if the config's mesh
    does not fit it. A step that is too large for a device is a result: `fits` is false.
    """
    devices = describe(plan.topology)
    config = without_ramp(plan.config)
    layout = make_layout(config, devices)
    model = make_gpt(config.model, config.compute, layout)
    steps = compile_steps(config, model, layout)
    kernel = model.execution.kernel
    attention = f"{kernel.name}: {kernel.reason}"
    start = time.perf_counter()
    with _without_cache(), tempfile.TemporaryDirectory() as dump:
        lowered = steps.train.lower(*abstract_arguments(config, layout, steps))
        try:
            program = lowered.compile({"xla_dump_to": dump})
        except jax.errors.JaxRuntimeError as error:
            return _too_large(error, time.perf_counter() - start, attention)
        seconds = time.perf_counter() - start
        total_bytes = reserved_bytes(Path(dump))
    return _read(plan, program, total_bytes, seconds, attention, splash=kernel.name == "splash")


def reserved_bytes(dump: Path) -> int:
    """Bytes reserved in the device's main memory, read from the memory report in an XLA dump."""
    report = next(dump.glob("*.after_optimizations-memory-usage-report.txt")).read_text()
    found = re.search(r"^Memory Space: default .*\nTotal bytes: (\d+)", report, re.MULTILINE)
    assert found is not None, report[:200]
    return int(found[1])


def describe(topology: Topology) -> list[jax.Device]:
    """The devices of a topology, which need not exist; ValueError if libtpu cannot tell."""
    if topology.chip.backend != "tpu":
        raise ValueError(
            f"--compile needs a TPU topology, not {topology.name}: only libtpu compiles for "
            f"devices that are not here"
        )
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what libtpu writes to standard error, past Python, when it starts away from a TPU."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Programs of devices that are not here are not written to the persistent cache."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def abstract_arguments(config: Config, layout: Layout, steps: CompiledSteps) -> tuple[Any, ...]:
    """Shapes, types and shardings of what the compiled training step takes, for one batch."""
    shape = (1, config.train.batch_sequences, config.model.seq_len)

    def rows(dtype: type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=layout.batches)

    segments = rows(np.int32) if config.data.separate_documents else None
    batch = Batch(rows(np.int32), rows(np.int32), rows(np.float32), segments)
    everywhere = layout.everywhere
    settings = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype, sharding=everywhere),
        make_settings(config, make_timetable(config)),
    )
    n_steps = jax.ShapeDtypeStruct((), np.int32, sharding=everywhere)
    return steps.abstract_state, batch, n_steps, settings


def _read(
    plan: Plan, program: Any, total_bytes: int, seconds: float, attention: str, splash: bool
) -> Compiled:
    memory, analysis = program.memory_analysis(), program.cost_analysis()
    costs = hlo.count(program.as_text() or "")
    return Compiled(
        fits=True,
        argument_bytes=memory.argument_size_in_bytes,
        total_bytes=total_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        summed_temporary_bytes=memory.temp_size_in_bytes,
        once_flops=analysis["flops"],
        once_bytes=analysis["bytes accessed"],
        once_seconds=analysis["optimal_seconds"],
        costs=costs,
        cycle_seconds=costs.cycles / clock(plan.topology),
        kernel_seconds=_kernel_seconds(plan) if splash else 0.0,
        compile_seconds=seconds,
        attention=attention,
    )


def clock(topology: Topology) -> float:
    """Cycles a second."""
    chip = topology.chip
    return chip.peak("bfloat16") / (2 * PRODUCT_UNITS[chip.name])


def _kernel_seconds(plan: Plan) -> float:
    """Seconds of the attention kernels: their matmuls at KERNEL_SHARE of the peak."""
    sequences = plan.config.train.batch_sequences / plan.mesh.n_devices
    work = attention_flops_per_sequence(plan.config) * sequences
    return work / (KERNEL_SHARE * plan.topology.chip.peak("bfloat16"))


def _too_large(error: Exception, seconds: float, attention: str) -> Compiled:
    """RESOURCE_EXHAUSTED, the compiler's refusal; any other error of it is a fault, and raised."""
    message = str(error).splitlines()[0]
    if "RESOURCE_EXHAUSTED" not in message:
        raise error
    none = hlo.Costs(0.0, 0.0, 0.0, ())
    nothing = (0, 0, 0, 0, 0.0, 0.0, 0.0, none, 0.0, 0.0)
    return Compiled(False, *nothing, seconds, attention, message)
