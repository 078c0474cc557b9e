"""Step times that others measured, beside our closed forms: what `gpt-jax plan` is calibrated with.

Must not import jax.
"""

import dataclasses
import functools
from collections import defaultdict
from decimal import Decimal
from typing import Any

from gpt_jax.config import Config, overrides
from gpt_jax.cost import calibration
from gpt_jax.cost.calibration import Measured
from gpt_jax.cost.estimate import Plan, make_plan
from gpt_jax.cost.topology import parse_topology
from gpt_jax.published.compare import Cell, Comparison, Row, load, not_comparable, number

GATED = {"model.activation": "swiglu", "model.norm": "rmsnorm", "model.bias": False,
         "model.position": "rotary"}  # fmt: skip
PLAIN = {"model.bias": False, "model.position": "rotary"}


def plan_of(row: dict[str, Any]) -> Plan:
    """Our plan of a row of `data/step_times.json`."""
    topology = parse_topology(row["topology"])
    model = {name: _whole(value) for name, value in row["model"].items()}
    gated = model.pop("gated")
    sequences = int(row["sequences_per_device"]) * topology.n_devices
    changes = {
        **{f"model.{name}": value for name, value in model.items()},
        **(GATED if gated else PLAIN),
        **{f"mesh.{axis}": int(size) for axis, size in row["mesh"].items()},
        "train.batch_sequences": sequences,
        "train.tokens": sequences * int(row["model"]["seq_len"]),
        "compute.remat": row["remat"],
    }
    return make_plan(overrides.override(Config(), changes), topology)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) else value


@functools.cache
def measured_steps() -> tuple[Measured, ...]:
    """The rows, with our closed form."""
    return tuple(_measured(row, plan_of(row)) for row in load("step_times")["rows"])


def expected(plan: Plan) -> calibration.Factor:
    """Factor of `Plan.in_turn_seconds` to the time that steps like it took; `of` says what no row
    has."""
    found = calibration.factor(plan.topology.chip.name, plan.config.compute.remat, measured_steps())
    missing = [
        what
        for what, has in (
            ("experts", plan.config.model.n_experts is not None),
            ("a split sequence", plan.mesh.sequence > 1),
            ("several slices", plan.mesh.slices > 1),
        )
        if has
    ]
    if not missing:
        return found
    whose = found.of or "others of this chip and kind"
    return dataclasses.replace(found, of=f"no row has {' or '.join(missing)}; {whose}")


def about_seconds(plan: Plan) -> float:
    """Expected seconds of a step."""
    return expected(plan).mean * plan.in_turn_seconds


def _measured(row: dict[str, Any], plan: Plan) -> Measured:
    chip, remat, closed_form = plan.topology.chip.name, row["remat"], plan.in_turn_seconds
    return Measured(row["name"], chip, remat, closed_form, float(row["seconds"]))


def step_times() -> Comparison:
    """Each measured step beside what the factor of the others says of it (left out one by one)."""
    data, rows = load("step_times"), measured_steps()
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    shown = []
    for printed, row in zip(data["rows"], rows, strict=True):
        plan = plan_of(printed)
        predicted = calibration.held_out(row, rows)
        label = f"{row.name}, {printed['topology']}, {row.remat}"
        if predicted is None:
            cell = not_comparable("seconds", printed["seconds"], "no other row is of its kind")
        else:
            errors[row.chip, calibration.kind(row.remat)].append(predicted / row.seconds - 1)
            off = f"differs by {100 * (predicted / row.seconds - 1):+.2g}%"
            cell = Cell("seconds", number(row.seconds), f"{predicted:.3f}", off)
        bound = Cell(
            "bound",
            number(row.seconds),
            f"{plan.bound_seconds:.3f}",
            f"differs by {100 * (plan.bound_seconds / row.seconds - 1):+.2g}%",
        )
        shown.append(Row(label, (cell, bound)))
    return Comparison(
        "Step times: measured, and planned",
        data["paper"],
        "seconds: the closed form (compute and memory in turn) times the factor of the other rows "
        "of the chip and kind; bound: all overlaps perfectly",
        tuple(shown),
        (),
        tuple(_summary(chip, kind, errors[chip, kind]) for chip, kind in errors),
    )


def _summary(chip: str, kind: str, errors: list[float]) -> str:
    """The factor of a chip and a kind, and how far it is off for rows that it has not seen."""
    found = calibration.factor(chip, kind, measured_steps())
    off = [abs(error) for error in errors]
    return (
        f"{chip.removeprefix('tpu_')}, {kind}: {found.n_rows} rows took {found.mean:.2f} times the "
        f"closed form ({found.least:.2f} to {found.most:.2f}); a row left out is predicted within "
        f"{100 * sum(off) / len(off):.1f}% on average, {100 * max(off):.1f}% at worst"
    )
