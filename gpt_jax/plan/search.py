"""The meshes, microbatches and rematerialization policies that fit, ranked. Must not import jax."""

from gpt_jax import overrides
from gpt_jax.config import Config
from gpt_jax.meshes import obstacle
from gpt_jax.plan.estimate import Plan, make_plan
from gpt_jax.plan.mesh import without_ramp
from gpt_jax.plan.topology import Topology

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
"""What is searched."""


def search(config: Config, topology: Topology, price: float | None = None) -> list[Plan]:
    """Plans that fit by closed form, the fastest first.

    By the roofline's bound; of plans within a tenth of a percent, the one with the least traffic to
    memory and between chips, which a real step never hides perfectly. Raises ValueError if nothing
    fits, saying what comes nearest.
    """
    plans = []
    for changes in candidates(config, topology):
        changed = overrides.draft(config, changes)
        if not obstacle(without_ramp(changed), topology.n_devices):
            plans.append(make_plan(changed, topology, price))
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        raise ValueError(_nothing_fits(config, topology, plans))
    return sorted(fitting, key=_rank)


def _rank(plan: Plan) -> tuple[float, float, float]:
    digits = float(f"{plan.step_seconds:.3g}")
    return digits, plan.memory_seconds + plan.network_seconds, plan.memory.total


def candidates(config: Config, topology: Topology) -> list[dict[str, int | str]]:
    """Changes of `SETTINGS` worth a look: every way to split the devices, by divisors."""
    sizes = {config.train.batch_sequences, config.train.ramp_from_sequences or 0} - {0}
    microbatches = [n for n in _divisors(min(sizes)) if n <= MOST_MICROBATCHES and n & (n - 1) == 0]
    found: list[dict[str, int | str]] = []
    for tensor in _divisors(topology.n_devices):
        if tensor > MOST_TENSOR:
            continue
        for fsdp in _divisors(topology.n_devices // tensor):
            data = topology.n_devices // tensor // fsdp
            for parts in microbatches:
                for remat in REMAT:
                    values = (data, fsdp, tensor, parts, remat)
                    found.append(dict(zip(SETTINGS, values, strict=True)))
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


def as_overrides(plan: Plan) -> str:
    """The searched settings of a plan, to be pasted behind `gpt-jax train CONFIG`."""
    values = overrides.flatten(plan.config)
    return " ".join(f"--{key} {values[key]}" for key in SETTINGS)
