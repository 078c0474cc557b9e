"""`gpt-jax sweep status SWEEP`: the state of every trial, and how far the running ones are.

Must not import jax.
"""

import argparse
import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.hints import counted
from gpt_jax.runs.tracking import Record, format_seconds
from gpt_jax.storage import paths
from gpt_jax.storage.paths import Address
from gpt_jax.sweep.store import LABELS, STATES, Entry, State, SweepDirectory

LOOK_SECONDS = 5.0
"""Between two looks of a watcher into a bucket."""
TAIL_BYTES = 4096
"""The end of metrics.jsonl that surely holds a whole record."""


@dataclasses.dataclass(frozen=True)
class TrialProgress:
    """How far a trial is."""

    entry: Entry
    state: State
    share: float
    """Share of its tokens that is trained, 0 to 1."""
    flops: float
    """FLOPs of the whole trial, counted exactly."""
    loss: float | None = None
    """Validation loss if the trial is done, else the last step's."""
    tokens_per_second: float | None = None
    message: str = ""

    @property
    def seconds_left(self) -> float | None:
        if self.state != "running" or not self.tokens_per_second:
            return None
        n_tokens = make_timetable(self.entry.config).n_tokens
        return (1 - self.share) * n_tokens / self.tokens_per_second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "SWEEP may also be the sweep's directory. Nothing is changed by asking."


def run(arguments: argparse.Namespace) -> int:
    """Print a table of all trials; raises ValueError if no sweep was begun there."""
    if arguments.rest:
        raise ValueError(f"sweep status takes no overrides, got {' '.join(arguments.rest)}")
    sweep = SweepDirectory.open(find_directory(arguments.sweep, arguments.workdir))
    trials = progress(sweep)
    print("\n".join([*table(trials), "", summary(sweep.place, trials)]))
    return 0


def find_directory(sweep: str, workdir: str | None) -> Path | Address:
    """The sweep's directory: as given, or SWEEP itself if it is one, or runs/NAME."""
    path = paths.given(sweep)
    if workdir is not None:
        return paths.given(workdir)
    if isinstance(path, Address):
        return path
    if (path / "sweep.json").is_file():
        return path
    named_by_folder = path.stem == "sweep" and path.suffix == ".py"
    return Path("runs") / (path.resolve().parent.name if named_by_folder else path.stem)


def progress(sweep: SweepDirectory) -> list[TrialProgress]:
    """Every trial's progress now, in the sweep's order; in a bucket, that of some seconds ago."""
    sweep.refresh(LOOK_SECONDS)
    return [_progress(sweep, entry) for entry in sweep.entries]


def _progress(sweep: SweepDirectory, entry: Entry) -> TrialProgress:
    state, run, n_tokens = sweep.state(entry.name), sweep.run(entry.name), _n_tokens(entry)
    cost = flops.training_flops(entry.config.model, n_tokens, "exact")
    if state == "done":
        result = run.read_result() or {}
        return TrialProgress(entry, state, 1.0, cost, _number(result, "validation_loss"))
    outcome = sweep.outcome(entry.name)
    message = "" if outcome is None or state == "running" else str(outcome["message"])
    record = last_step(run.metrics) or {"tokens": 0}
    return TrialProgress(
        entry=entry,
        state=state,
        share=min(1.0, record["tokens"] / n_tokens),
        flops=cost,
        loss=_number(record, "loss"),
        tokens_per_second=_number(record, "tokens_per_second"),
        message=message,
    )


def last_step(metrics: Path) -> Record | None:
    """The last whole record of a step in metrics.jsonl."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    for line in reversed(lines[:-1]):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # the first one may have been cut
            continue
        if isinstance(record, dict) and "step_seconds" in record and "tokens" in record:
            return record
    return None


def table(trials: Sequence[TrialProgress]) -> list[str]:
    """Aligned lines: name, state, progress, loss, time left; then what went wrong."""
    width = max([len(t.entry.name) for t in trials] + [5])
    states = max(9, *(len(label(t.state)) for t in trials))
    lines = [f"{'trial':<{width}}  {'state':<{states}}  {'done':>5}  {'loss':>8}  {'left':>8}"]
    for trial in trials:
        loss = "" if trial.loss is None else f"{trial.loss:.4f}"
        left = trial.seconds_left
        shown = "" if left is None else format_seconds(left)
        lines.append(
            f"{trial.entry.name:<{width}}  {label(trial.state):<{states}}  {trial.share:>5.0%}  "
            f"{loss:>8}  {shown:>8}".rstrip()
        )
    wrong = [t for t in trials if t.state in ("stopped", "diverged", "failed", "damaged")]
    return lines + [f"{label(t.state)}: {t.entry.name}: {t.message}" for t in wrong]


def summary(path: Path | Address, trials: Sequence[TrialProgress]) -> str:
    """One line: how many trials are in which state, and the share of all FLOPs that is done."""
    counts = count(trials)
    total = sum(t.flops for t in trials)
    done = sum(t.flops * t.share for t in trials)
    parts = [f"{n} {label(state)}" for state, n in counts.items() if n]
    of = counted(len(trials), "trial")
    return f"{path}: {of}: {', '.join(parts)}; {done / total:.0%} of the FLOPs"


def count(trials: Sequence[TrialProgress]) -> Mapping[State, int]:
    found = collections.Counter(t.state for t in trials)
    return {state: found[state] for state in STATES}


def label(state: str) -> str:
    """A state as people read it."""
    return LABELS.get(state, state)


def _n_tokens(entry: Entry) -> int:
    return make_timetable(entry.config).n_tokens


def _number(record: Record, name: str) -> float | None:
    value = record.get(name)
    return value if isinstance(value, float) else None
