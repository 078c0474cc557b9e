"""A comparison of two ladders as text and as JSON. Must not import jax."""

import math
from typing import Any

import numpy as np

from gpt_jax.scaling.compare import Comparison, CostComparison, Multiplier

CLEAR = 0.05
UNITS = {"compute": "FLOPs", "tokens": "tokens", "seconds": "s"}


def text(found: Comparison) -> str:
    """For a terminal."""
    a, b = found.a, found.b
    lines = [f"A = {a.name}: {a.n_rungs} rungs, {len(a.runs)} runs; "
             f"B = {b.name}: {b.n_rungs} rungs, {len(b.runs)} runs; {found.metric}"]  # fmt: skip
    lines += [*dict.fromkeys([*a.runs.notes, *b.runs.notes])]
    for cost in found.costs:
        lines += ["", *_cost(cost)]
    lines += [f"{kind}: not compared: {why}" for kind, why in found.left_out.items()]
    lines += [""] if found.seeds else ["", "no rung of both has two seeds: no test of seeds"]
    for test in found.seeds:
        where = "all of these" if math.isnan(test.compute) else f"{test.compute:.3g} FLOPs"
        how = "paired t-test" if test.paired else "Welch's t-test"
        lines.append(
            f"seeds, {where}: A - B = {test.difference:+.4f}, p = {test.p:.2g} ({how}, "
            f"{test.n[0]} and {test.n[1]} runs)"
        )
    lines += [f"warning: {warning}" for warning in found.warnings]
    return "\n".join(lines)


def _cost(cost: CostComparison) -> list[str]:
    kind, target = cost.kind, cost.target
    low, high = target.intervals[95]
    lines = [
        f"{kind}: for the loss {target.loss:.4f} ({cost.asked}) A needs {target.value:.3g} times "
        f"the {kind} of B, 95% [{_text(low)}, {_text(high)}]",
        f"  {'B spends':>10s} {'loss':>8s} {'times':>7s}  95%",
    ]
    for point in cost.curve[::2]:
        low, high = point.intervals[95]
        beyond = f"  {point.beyond:.2g} times beyond the runs" if point.beyond > 1.05 else ""
        lines.append(
            f"  {point.cost:10.3g} {point.loss:8.4f} {point.value:7.3g}  "
            f"[{_text(low)}, {_text(high)}]{beyond}"
        )
    lines += [f"  {question}: p = {p:.2g} (F-test)" for question, p in cost.checks.items()]
    for held in cost.held_out:
        error = held.predicted / held.measured - 1
        lines.append(
            f"  held out: {held.ladder} at {held.cost:.3g} {UNITS[kind]}: predicted "
            f"{held.predicted:.4f} [{_text(held.interval[0])}, {_text(held.interval[1])}], "
            f"measured {held.measured:.4f} ({100 * error:+.2f}%)"
        )
    return lines


def _text(value: float) -> str:
    return "open" if math.isnan(value) else f"{value:.4g}"


def to_json(found: Comparison) -> dict[str, Any]:
    """Everything; open edges and unknown numbers are null."""
    return {
        "a": _ladder(found, 0),
        "b": _ladder(found, 1),
        "metric": found.metric,
        "costs": {
            cost.kind: {
                "shared": cost.shared,
                "law": cost.law.formula,
                "parameters": {
                    symbol: float(np.exp(value))
                    for symbol, value in zip(
                        cost.law.symbols, cost.law.log_symbols(cost.theta[None])[0], strict=True
                    )
                },
                "asked": cost.asked,
                "target": _multiplier(cost.target),
                "curve": [_multiplier(point) for point in cost.curve],
                "p_values": {question: _number(p) for question, p in cost.checks.items()},
                "held_out": [
                    {
                        "ladder": held.ladder,
                        "cost": held.cost,
                        "measured": held.measured,
                        "predicted": held.predicted,
                        "predicted_95": [_number(edge) for edge in held.interval],
                    }
                    for held in cost.held_out
                ],
            }
            for cost in found.costs
        },
        "not_compared": found.left_out,
        "seeds": [
            {
                "flops": _number(test.compute),
                "difference": test.difference,
                "p": _number(test.p),
                "n": list(test.n),
                "paired": test.paired,
            }
            for test in found.seeds
        ],
        "warnings": list(found.warnings),
    }


def _ladder(found: Comparison, which: int) -> dict[str, Any]:
    ladder = (found.a, found.b)[which]
    return {
        "name": ladder.name,
        "flops": ladder.compute.tolist(),
        "runs": len(ladder.runs),
        "conventions": dict(ladder.runs.conventions),
        "notes": list(ladder.runs.notes),
    }


def _multiplier(point: Multiplier) -> dict[str, Any]:
    return {
        "cost": point.cost,
        "loss": point.loss,
        "times": point.value,
        "intervals": {
            str(level): [_number(edge) for edge in edges]
            for level, edges in point.intervals.items()
        },
        "times_beyond_the_runs": point.beyond,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
