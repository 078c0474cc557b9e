"""Cost of each trial of a sweep, before it runs. Must not import jax."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.cost.memory import Memory
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.storage.json_files import Damaged
from gpt_jax.sweep.load import Sweep
from gpt_jax.sweep.machine import Machine
from gpt_jax.sweep.trial import Infeasible, Trial

Seconds = Callable[[Config, float], float | None]
"""(config, tokens) -> the time to train on so many tokens; None if unknown."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One trial, or one infeasible cell (with a reason, and perhaps without numbers)."""

    name: str
    n_params: int | None = None
    n_params_non_embedding: int | None = None
    n_params_matmul: int | None = None
    n_tokens: int | None = None
    n_steps: int | None = None
    flops: float | None = None
    """FLOPs of the whole run, counted exactly, also where a branch computes only a part."""
    flops_6nd: float | None = None
    flops_to_run: float | None = None
    """FLOPs that this trial computes itself: the cooldown, for a branch."""
    memory_bytes: float | None = None
    """On one device; activations estimated. None where the mesh does not fit."""
    seconds: float | None = None
    """Time of what this trial computes itself; of a run finished on this machine, measured."""
    done: bool = False
    trunk: str = ""
    """The trial that this one branches off."""
    reason: str = ""
    """Why it cannot be trained."""

    @property
    def tokens_per_param(self) -> float | None:
        if self.n_tokens is None or self.n_params is None:
            return None
        return self.n_tokens / self.n_params

    @property
    def state(self) -> str:
        return "infeasible" if self.reason else "done" if self.done else ""


COLUMNS = (*(field.name for field in dataclasses.fields(Row)), "tokens_per_param", "state")


def cost_rows(
    sweep: Sweep, directory: Path, machine: Machine, seconds: Seconds, here: bool = True
) -> list[Row]:
    """A row for each trial in the sweep's order, then one for each infeasible cell.

    directory: of the sweep, where finished runs are found. here: whether the machine is the one
    that trains; the time of a finished trial is its own there, and that of `seconds` elsewhere.
    """
    known = {overrides.fingerprint(trial.config): trial.name for trial in sweep.trials}
    rows = []
    for trial in sweep.trials:
        trunk = None if trial.trunk is None else known.get(overrides.fingerprint(trial.trunk))
        rows.append(_cost(trial, trunk, directory, machine, seconds, here))
    return rows + [_infeasible(cell) for cell in sweep.infeasible]


def _cost(
    trial: Trial,
    trunk: str | None,
    directory: Path,
    machine: Machine,
    seconds: Seconds,
    here: bool,
) -> Row:
    config, counts = trial.config, flops.count_parameters(trial.config.model)
    table = make_timetable(config)
    own_tokens = table.n_tokens if trunk is None else config.schedule.cooldown_tokens
    obstacle = machine.obstacle(config)
    needed = None if obstacle else machine.memory(config)
    reason = obstacle if needed is None else _too_large(needed, machine)
    was = _training_seconds(trial, directory)
    took = was if here else None
    if took is None and not reason:
        took = seconds(config, own_tokens)
    return Row(
        name=trial.name,
        n_params=counts.n_params,
        n_params_non_embedding=counts.n_params_non_embedding,
        n_params_matmul=counts.n_params_matmul,
        n_tokens=table.n_tokens,
        n_steps=table.n_steps,
        flops=flops.training_flops(config.model, table.n_tokens, "exact"),
        flops_6nd=flops.training_flops(config.model, table.n_tokens, "6nd"),
        flops_to_run=flops.training_flops(config.model, own_tokens, "exact"),
        memory_bytes=None if needed is None else needed.total,
        seconds=took,
        done=was is not None,
        trunk=trunk or "",
        reason="" if was is not None else reason,
    )


def _infeasible(cell: Infeasible) -> Row:
    return Row(name=cell.name, reason=cell.reason)


def _too_large(needed: Memory, machine: Machine) -> str:
    available = machine.available_bytes
    if available is None or needed.total <= available:
        return ""
    return (
        f"does not fit memory: about {needed.total / 1e9:,.1f} GB a device (state "
        f"{needed.state / 1e9:,.1f}, the rest estimated) of {available / 1e9:,.1f} that may be "
        f"planned; raise compute.microbatches or mesh.fsdp, or set compute.remat"
    )


def _training_seconds(trial: Trial, directory: Path) -> float | None:
    """How long the trial trained, if it is done in this directory."""
    run = RunDirectory(directory / "trials" / trial.name)
    try:
        result: dict[str, Any] | None = run.read_result()
    except Damaged:  # `sweep status` says so
        return None
    if result is None or result["fingerprint"] != overrides.fingerprint(trial.config):
        return None
    return float(result["training_seconds"])
