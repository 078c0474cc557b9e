"""The meshes, microbatches and rematerialization policies that fit, ranked. Must not import jax."""

import itertools
from collections.abc import Sequence

from gpt_jax.config import Config, overrides
from gpt_jax.config.meshes import obstacle
from gpt_jax.config.wording import show
from gpt_jax.cost.estimate import Plan, make_plan
from gpt_jax.cost.mesh import without_ramp
from gpt_jax.cost.topology import Topology

REMAT = ("none", "attention", "dots", "full")
MOST_MICROBATCHES = 64
MOST_TENSOR = 64
SETTINGS = (
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "compute.microbatches",
    "compute.remat",
)
"""Settings that are searched."""
RAMP = ("train.ramp_from_sequences", "train.ramp_tokens")
OTHERS = ("mesh.expert", "mesh.sequence", "mesh.slices")
"""Besides: of a model with experts; where nothing fits otherwise; as many as the topology has."""


def search(config: Config, topology: Topology, price: float | None = None) -> list[Plan]:
    """Plans that fit by closed form, the fastest first.

    By compute, memory and interconnect in turn, for a real step hides none of them perfectly; of
    plans within a tenth of a percent, the one that needs the least memory. Raises ValueError if
    nothing fits, saying what comes nearest.
    """
    given = config.mesh.sequence
    others = [n for n in _divisors(topology.n_devices // topology.slices) if n != given]
    plans: list[Plan] = []
    for sequences in ([given], others):
        for changes in candidates(config, topology, sequences):
            changed = overrides.draft(config, changes)
            if not obstacle(without_ramp(changed), topology.n_devices):
                plans.append(make_plan(changed, topology, price))
        fitting = [plan for plan in plans if plan.fits]
        if fitting:
            return sorted(fitting, key=_rank)
    raise ValueError(_nothing_fits(config, topology, plans))


def _rank(plan: Plan) -> tuple[float, float]:
    in_turn = plan.compute_seconds + plan.memory_seconds + plan.network_seconds
    return float(f"{in_turn:.3g}"), plan.memory.total


def candidates(
    config: Config, topology: Topology, sequences: Sequence[int] = (1,)
) -> list[dict[str, int | str]]:
    """Changes of `SETTINGS` and `OTHERS` worth a look: every way to split the devices, by divisors.

    sequences: what is tried of mesh.sequence.
    """
    slices = topology.slices if topology.chip.backend == "tpu" else config.mesh.slices
    n_devices = topology.n_devices // slices
    experts = [e for e in _divisors(n_devices) if (config.model.n_experts or 1) % e == 0]
    sizes = {config.train.batch_sequences, config.train.ramp_from_sequences or 0} - {0}
    microbatches = [n for n in _divisors(min(sizes)) if n <= MOST_MICROBATCHES and n & (n - 1) == 0]
    found: list[dict[str, int | str]] = []
    tensors = [n for n in _divisors(n_devices) if n <= MOST_TENSOR]
    for tensor, expert, sequence in itertools.product(tensors, experts, sequences):
        if n_devices % (tensor * expert * sequence):
            continue
        left = n_devices // (tensor * expert * sequence)
        for fsdp, parts, remat in itertools.product(_divisors(left), microbatches, REMAT):
            values = (left // fsdp, fsdp, tensor, parts, remat, expert, sequence, slices)
            found.append(dict(zip(SETTINGS + OTHERS, values, strict=True)))
    return found


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _nothing_fits(config: Config, topology: Topology, plans: list[Plan]) -> str:
    if not plans:
        return (
            f"{config.name}: no mesh divides {topology.n_devices} devices, a batch of "
            f"{config.train.batch_sequences} sequences and the model's sizes; change "
            f"train.batch_sequences or --topology"
        )
    least = min(plans, key=lambda plan: plan.memory.total)
    return (
        f"{config.name} fits no mesh of {topology.name}: the least is "
        f"{least.memory.total / 1e9:,.1f} GB on each device, of "
        f"{least.available_bytes / 1e9:,.1f} GB; choose a larger --topology"
    )


def as_overrides(plan: Plan, config: Config) -> str:
    """The searched settings of a plan, to be pasted behind `gpt-jax train CONFIG`; of a ramp, a
    first batch that the mesh divides.

    config: as it was given; of `OTHERS` and the ramp, what is not as it was is told.
    """
    fitted = with_fitting_ramp(plan.config, plan.topology.n_devices)
    values, before = overrides.flatten(fitted), overrides.flatten(config)
    keys = [*SETTINGS, *(key for key in (*OTHERS, *RAMP) if values[key] != before[key])]
    return " ".join(f"--{key} {show(values[key])}" for key in keys)


def with_fitting_ramp(config: Config, n_devices: int) -> Config:
    """The config with the smallest first batch, not below its own, that its mesh and microbatches
    divide; without a ramp where only the whole batch is left."""
    first, whole = config.train.ramp_from_sequences, config.train.batch_sequences
    if first is None or not obstacle(config, n_devices):
        return config
    for sequences in range(first, whole):
        if sequences % config.compute.microbatches:
            continue
        ramped = overrides.draft(config, {"train.ramp_from_sequences": sequences})
        if not obstacle(ramped, n_devices):
            return ramped
    return without_ramp(config)
