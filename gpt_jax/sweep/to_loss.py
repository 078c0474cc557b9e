"""Steps to loss: the tokens, FLOPs and seconds at which runs first have a validation loss.

Between two validations the loss is taken to be linear in the logarithm of the tokens.

Must not import jax.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from gpt_jax.cost import flops
from gpt_jax.runs.history import OF_A_STEP, iterate_metrics
from gpt_jax.runs.tracking import Record
from gpt_jax.sweep.figures import short, show
from gpt_jax.sweep.page_numbers import interval, number
from gpt_jax.sweep.store import LABELS
from gpt_jax.sweep.table import Measured, varied_keys, varied_value

LEVEL = 95
COSTS = ("n_tokens", "flops", "seconds")


@dataclass(frozen=True)
class Reached:
    """Where one run first has the loss."""

    run: str
    n_tokens: float
    flops: float
    seconds: float
    at_most: bool
    """Its first validation is at or below the loss already: it was reached before."""


@dataclass(frozen=True)
class Setting:
    """The seeds of one setting."""

    name: str
    reached: tuple[Reached, ...]
    never: tuple[str, ...]
    """Runs that never had the loss, and why they ended"""

    @property
    def n_runs(self) -> int:
        return len(self.reached) + len(self.never)

    def mean(self, cost: str) -> float:
        """Geometric mean over the seeds that reach it."""
        return float(np.exp(np.log([asdict(run)[cost] for run in self.reached]).mean()))

    def interval(self, cost: str) -> tuple[float, float] | None:
        """LEVEL percent interval of the mean, by Student's t of logarithms; None for one seed, and
        where a bound is among them."""
        from scipy.special import stdtrit

        if any(run.at_most for run in self.reached):
            return None
        logs = np.log([asdict(run)[cost] for run in self.reached])
        if logs.size < 2:
            return None
        half = float(stdtrit(logs.size - 1, 0.5 + LEVEL / 200) * logs.std(ddof=1) / logs.size**0.5)
        return math.exp(logs.mean() - half), math.exp(logs.mean() + half)


def to_loss(trials: Sequence[Measured], loss: float) -> list[Setting]:
    """Settings of the sweep that have begun, with what each needs to the loss, the cheapest first.

    Trials that differ in their seed alone are one setting.
    """
    keys = [key for key in varied_keys(trials) if key != "seed"]
    groups: dict[str, list[Measured]] = {}
    for trial in trials:
        if trial.validations or trial.state in ("done", "stopped", "diverged"):
            name = ", ".join(
                f"{short(k.removesuffix('.name'))} {show(varied_value(trial, k))}" for k in keys
            )
            groups.setdefault(name or "the only setting", []).append(trial)
    found = []
    for name, group in groups.items():
        reached, never = [], []
        for trial in group:
            run = _reached(trial, loss)
            if run is None:
                never.append(f"{trial.entry.name} ({_why(trial)})")
            else:
                reached.append(run)
        found.append(Setting(name, tuple(reached), tuple(never)))
    return sorted(found, key=lambda s: s.mean("flops") if s.reached else math.inf)


def _why(trial: Measured) -> str:
    best = min((r["validation_loss"] for r in _validations(trial)), default=None)
    lowest = "never validated" if best is None else f"lowest {best:.4f}"
    return f"{LABELS.get(trial.state, trial.state)}, {lowest}"


def _validations(trial: Measured) -> list[Record]:
    """In order, those with a finite loss."""
    return [
        r
        for r in trial.validations
        if isinstance(r["validation_loss"], float) and math.isfinite(r["validation_loss"])
    ]


def _reached(trial: Measured, loss: float) -> Reached | None:
    before: Record | None = None
    for record in _validations(trial):
        if record["validation_loss"] <= loss:
            break
        before = record
    else:
        return None
    tokens = float(record["tokens"])
    if before is not None:
        share = (before["validation_loss"] - loss) / (
            before["validation_loss"] - record["validation_loss"]
        )
        tokens = math.exp(
            (1 - share) * math.log(before["tokens"]) + share * math.log(record["tokens"])
        )
    per_token = flops.training_flops_per_token(trial.entry.config.model, "exact")
    return Reached(
        trial.entry.name, tokens, per_token * tokens, _seconds(trial, tokens), before is None
    )


def _seconds(trial: Measured, n_tokens: float) -> float:
    """Seconds of steps until so many tokens; nan where the records do not say."""
    if trial.metrics is None:
        return math.nan
    spent, last = 0.0, 0.0
    for record in iterate_metrics(trial.metrics):
        if OF_A_STEP not in record:
            continue
        if record["tokens"] >= n_tokens:
            share = (n_tokens - last) / max(record["tokens"] - last, 1)
            return spent + share * float(record[OF_A_STEP])
        spent, last = spent + float(record[OF_A_STEP]), float(record["tokens"])
    return spent or math.nan


def text(settings: Sequence[Setting], loss: float) -> list[str]:
    """For a terminal: a line for each setting, and one for each run that never has the loss."""
    lines = [f"to a validation loss of {loss:g} (mean over seeds, {LEVEL}% interval):"]
    width = max((len(s.name) for s in settings), default=0)
    for setting in settings:
        if not setting.reached:
            lines.append(f"  {setting.name:{width}s}  never: {'; '.join(setting.never)}")
            continue
        costs = "  ".join(f"{unit} {_cost(setting, cost)}" for cost, unit in UNITS.items())
        lines.append(f"  {setting.name:{width}s}  {costs}{_caveat(setting)}")
    return lines


UNITS = {"n_tokens": "tokens", "flops": "FLOPs", "seconds": "s"}


def _cost(setting: Setting, cost: str) -> str:
    mean, edges = setting.mean(cost), setting.interval(cost)
    if math.isnan(mean):
        return "unknown"
    return f"{mean:.4g}" + (f" [{edges[0]:.3g}, {edges[1]:.3g}]" if edges else "")


def _caveat(setting: Setting) -> str:
    said = []
    if setting.never:
        said.append(
            f"of {len(setting.reached)} of {setting.n_runs} seeds; never: "
            f"{'; '.join(setting.never)}"
        )
    elif len(setting.reached) == 1:
        said.append("one seed")
    if any(run.at_most for run in setting.reached):
        said.append("at most: the first validation is below it already")
    return f"  ({'; '.join(said)})" if said else ""


def to_json(settings: Iterable[Setting], loss: float) -> dict[str, Any]:
    """Everything; unknown numbers are null."""
    return {
        "loss": loss,
        "level": LEVEL,
        "settings": [
            {
                "name": s.name,
                "reached": [{k: _finite(v) for k, v in asdict(run).items()} for run in s.reached],
                "never": list(s.never),
                **{
                    cost: {"mean": _finite(s.mean(cost)), "interval": _edges(s.interval(cost))}
                    for cost in COSTS
                    if s.reached
                },
            }
            for s in settings
        ],
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _edges(edges: tuple[float, float] | None) -> list[float] | None:
    return None if edges is None or math.isnan(edges[0]) else list(edges)


def rows(settings: Sequence[Setting]) -> list[list[Any]]:
    """For a page: setting, seeds that reach it, each cost with its interval, and of runs that never
    do the lowest loss."""
    return [
        [
            s.name,
            f"{len(s.reached)} of {s.n_runs}",
            *(cell for cost in COSTS for cell in _cells(s, cost)),
            "; ".join(s.never),
        ]
        for s in settings
    ]


def _cells(setting: Setting, cost: str) -> list[Any]:
    """Mean and interval."""
    if not setting.reached:
        return ["never", ""]
    mean, edges = setting.mean(cost), setting.interval(cost)
    if math.isnan(mean):
        return ["unknown", ""]
    bound = "at most " if any(run.at_most for run in setting.reached) else ""
    return [Markup("{}{}").format(bound, number(mean, 3)), interval(edges) if edges else ""]
