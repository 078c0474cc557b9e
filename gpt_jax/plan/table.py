"""Plans as rows of numbers, for tables, CSV and JSON. Must not import jax."""

import dataclasses
from typing import TYPE_CHECKING, Any, get_args

from gpt_jax.cost import flops
from gpt_jax.cost.estimate import Plan
from gpt_jax.published.step_times import about_seconds
from gpt_jax.storage import csv_cells

if TYPE_CHECKING:
    from gpt_jax.plan.compiled import Compiled

Record = dict[str, Any]


def record(plan: Plan, compiled: "Compiled | None" = None) -> Record:
    """All numbers of a plan, flat, in bytes and seconds of one device; the compiler's too.

    MFU, tokens per second, days, chip-hours and cost are those of the expected step.
    """
    config, memory = plan.config, plan.memory
    counts = flops.count_parameters(config.model)
    about = about_seconds(plan)
    row: Record = {
        "name": config.name,
        "topology": plan.topology.name,
        "chips": plan.topology.n_chips,
        "data": plan.mesh.data,
        "fsdp": plan.mesh.fsdp,
        "tensor": plan.mesh.tensor,
        "expert": plan.mesh.expert,
        "sequence": plan.mesh.sequence,
        "slices": plan.mesh.slices,
        "microbatches": config.compute.microbatches,
        "remat": config.compute.remat,
        "n_params": counts.n_params,
        "n_params_active": counts.n_params_active,
        "n_params_non_embedding": counts.n_params_non_embedding,
        "n_tokens": plan.n_tokens,
        "n_steps": plan.n_steps,
        "step_tokens": plan.step_tokens,
        **{f"{f.name}_bytes": getattr(memory, f.name) for f in dataclasses.fields(memory)},
        "argument_bytes": memory.state,
        "temporary_bytes": memory.temporaries,
        "total_bytes": memory.total,
        "available_bytes": plan.available_bytes,
        "fits": plan.fits,
        "executed_flops": plan.executed_flops,
        "model_flops": plan.model_flops,
        "compute_seconds": plan.compute_seconds,
        "memory_seconds": plan.memory_seconds,
        "network_seconds": plan.network_seconds,
        "bound_seconds": plan.bound_seconds,
        "bound_by": plan.bound_by,
        "in_turn_seconds": plan.in_turn_seconds,
        "about_seconds": about,
        **{f"mfu_{name}": plan.mfu(about, name) for name in get_args(flops.Convention)},
        "tokens_per_second": plan.tokens_per_second(about),
        "days": plan.days(about),
        "chip_hours": plan.chip_hours(about),
        "cost": plan.cost(about),
    }
    for axis in dataclasses.asdict(plan.mesh):
        sent = [t.sent_bytes for t in plan.traffic if t.axis == axis]
        row[f"{axis}_sent_bytes"] = sum(sent)
    return row | (_compiled(plan, compiled) if compiled else {})


def _compiled(plan: Plan, compiled: "Compiled") -> Record:
    known = compiled.total_bytes > 0
    row: Record = {
        "compiled_fits": compiled.fits,
        "compiled_argument_bytes": compiled.argument_bytes if known else None,
        "compiled_temporary_bytes": compiled.temporary_bytes if known else None,
        "compiled_total_bytes": compiled.total_bytes if known else None,
        "compiled_peak_bytes": compiled.peak_bytes if known else None,
        "summed_temporary_bytes": compiled.summed_temporary_bytes if known else None,
        "compiled_flops": compiled.costs.flops if known else None,
        "compiled_bytes": compiled.costs.n_bytes if known else None,
        "donated_bytes": compiled.donated_bytes if known else None,
        "compiled_work_seconds": compiled.work_seconds if known else None,
        "compiled_kernel_seconds": compiled.kernel_seconds if known else None,
        "compiled_exposed_seconds": compiled.costs.exposed_seconds if known else None,
        "compiled_peak_share": compiled.peak_share if known else None,
        "compiled_step_seconds": compiled.step_seconds if known else None,
        "compiled_mfu": plan.mfu(compiled.step_seconds) if known else None,
        "once_flops": compiled.once_flops if known else None,
        "once_bytes": compiled.once_bytes if known else None,
        "memory_difference": plan.memory.total / compiled.total_bytes - 1 if known else None,
        "compile_seconds": compiled.compile_seconds,
        "attention": compiled.attention,
        "message": compiled.message,
        "collectives": [dataclasses.asdict(c) for c in compiled.costs.collectives],
        "kernels": compiled.costs.kernels(),
    }
    return row


def as_csv(rows: list[Record]) -> str:
    """One line a plan, numbers in full; collectives and kernels are in JSON alone."""
    columns = [key for key in rows[0] if key not in ("collectives", "kernels")]
    return csv_cells.as_csv(columns, ([row[key] for key in columns] for row in rows))
