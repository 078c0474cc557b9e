"""The actual training step of a config, compiled for devices that are not here.

TPUs by libtpu, GPUs by jax's plugin for CUDA (`gpt_jax.plan.devices`).

The state is abstract, so that nothing of the model's size is ever allocated. Layers are scanned, so
that compiling takes as long for any depth.
"""

import contextlib
import dataclasses
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gpt_jax.config import Config
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost.estimate import Plan, attention_flops_per_sequence
from gpt_jax.cost.mesh import without_ramp
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.parallel.sharding import Layout, make_layout
from gpt_jax.plan.costs import Costs, count
from gpt_jax.plan.devices import INSTALL_GPU, describe, has_cudnn, speed
from gpt_jax.steps.compiled_steps import CompiledSteps, compile_steps
from gpt_jax.steps.step import make_settings

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
    donated_bytes: int
    """Arguments whose memory the results take."""
    once_flops: float | None
    """The compiler's own count, each loop's body once; None where it has none (GPUs)."""
    once_bytes: float | None
    costs: Costs
    """Each loop's body as often as it runs."""
    work_seconds: float
    """Time of all operations but collectives, one after another: a TPU's by the compiler's cycles,
    a GPU's by a roofline of each."""
    kernel_seconds: float
    """Assumed time of fused attention, by KERNEL_SHARE; 0 without."""
    peak_share: float
    """The most of the peak that a matmul attains by the compiler's cycles; 0 where it has none."""
    compile_seconds: float
    attention: str
    message: str = ""
    """Why it does not fit."""

    @property
    def temporary_bytes(self) -> int:
        return self.total_bytes - self.argument_bytes

    @property
    def step_seconds(self) -> float:
        """Work, attention, and the collectives beside which nothing runs."""
        return self.work_seconds + self.kernel_seconds + self.costs.exposed_seconds


def compile_plan(plan: Plan) -> Compiled:
    """Lower and compile the training step of a plan's config for its topology.

    Raises ValueError if the compiler is missing or does not know the topology, or if the config's
    mesh does not fit it. A step that is too large for a device is a result: `fits` is false.
    """
    devices = describe(plan.topology)
    config = without_ramp(plan.config)
    layout = make_layout(config, devices)
    model = make_gpt(config.model, config.compute, layout)
    steps = compile_steps(config, model, layout)
    kernel = model.execution.kernel
    if kernel.name == "cudnn" and not has_cudnn():
        raise ValueError(
            f"--compile with cuDNN attention needs nvidia-cudnn-cu12, which is absent: "
            f"{INSTALL_GPU}, or compute.attention = blockwise"
        )
    attention = kernel.warning or f"{kernel.name}: {kernel.reason}"
    start = time.perf_counter()
    with _without_cache(), tempfile.TemporaryDirectory() as dump:
        lowered = steps.train.lower(*abstract_arguments(config, layout, steps))
        on_tpu = plan.topology.chip.backend == "tpu"
        try:
            program = lowered.compile({"xla_dump_to": dump} if on_tpu else None)
        except jax.errors.JaxRuntimeError as error:
            return _too_large(error, time.perf_counter() - start, attention)
        seconds = time.perf_counter() - start
        total_bytes = reserved_bytes(Path(dump)) if on_tpu else allocated_bytes(program)
    return _read(plan, program, total_bytes, seconds, attention, kernel.name in FUSED)


FUSED = ("splash", "cudnn")
"""Attention kernels into which the compiler does not look."""


def allocated_bytes(program: Any) -> int:
    """Bytes of a GPU's program: arguments, one buffer for all temporaries, and results that take no
    argument's place."""
    memory = program.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + results


def reserved_bytes(dump: Path) -> int:
    """Bytes reserved in the device's main memory, read from the memory report in an XLA dump."""
    report = next(dump.glob("*.after_optimizations-memory-usage-report.txt")).read_text()
    found = re.search(r"^Memory Space: default .*\nTotal bytes: (\d+)", report, re.MULTILINE)
    assert found is not None, report[:200]
    return int(found[1])


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
    plan: Plan, program: Any, total_bytes: int, seconds: float, attention: str, fused: bool
) -> Compiled:
    memory, analysis, device = (
        program.memory_analysis(),
        program.cost_analysis(),
        speed(plan.topology),
    )
    costs = count(program.as_text() or "", device)
    fits = total_bytes <= plan.topology.chip.memory_bytes
    return Compiled(
        fits=fits,
        argument_bytes=memory.argument_size_in_bytes,
        total_bytes=total_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        summed_temporary_bytes=memory.temp_size_in_bytes,
        donated_bytes=memory.alias_size_in_bytes,
        once_flops=analysis["flops"] if analysis else None,
        once_bytes=analysis["bytes accessed"] if analysis else None,
        costs=costs,
        work_seconds=costs.seconds(device),
        kernel_seconds=_kernel_seconds(plan) if fused else 0.0,
        peak_share=costs.flops_per_cycle * (device.clock or 0.0) / device.peak,
        compile_seconds=seconds,
        attention=attention,
        message="" if fits else f"{total_bytes:,} bytes are more than the device has",
    )


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
    nothing = (0, 0, 0, 0, 0, 0.0, 0.0, Costs((), (), ()), 0.0, 0.0, 0.0)
    return Compiled(False, *nothing, seconds, attention, message)
