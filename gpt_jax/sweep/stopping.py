"""Rules that stop a trial of a sweep before its end, and the note of it, `stopped.json`.

Trials of one cell are compared: of the same number of parameters, about the same compute, and the
same data. A trial that was stopped once and is taken up again is trained to its end.

Must not import jax at import time.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt_jax.config.timetable import Timetable, make_timetable
from gpt_jax.cost import flops
from gpt_jax.runs.history import History, iterate_metrics
from gpt_jax.scaling.best import SAME_COMPUTE
from gpt_jax.scaling.curve import from_steps
from gpt_jax.scaling.laws import Array
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.checksum import checksum
from gpt_jax.storage.json_files import Damaged, read_object
from gpt_jax.sweep.hopeless import LEVEL, STRETCHES, FinishedRun, beginning, predict, scaled
from gpt_jax.sweep.store import Entry, SweepDirectory

RULES = {
    "hopeless": "the predicted final loss cannot beat the best finished trial of its cell",
    "asha": "asynchronous successive halving: not among the best third at a third or a ninth of "
    "its tokens (Li et al. 2020, arXiv:1810.05934)",
}
SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""Shares of a trial's tokens after which its end is predicted."""
ETA = 3
RUNGS = (1 / ETA**2, 1 / ETA)
"""Shares of a trial's tokens at which ASHA compares."""
RUNG_WINDOW = 0.1
"""Share of the tokens before a rung over which the training loss is averaged."""
FILE = "stopped.json"


@dataclass(frozen=True)
class Stop:
    """Why and where a trial was stopped."""

    rule: str
    """A key of RULES"""
    fingerprint: str
    step: int
    n_tokens: int
    share: float
    """Share of the trial's tokens that is trained"""
    predicted: float | None
    low: float | None
    high: float | None
    """The predicted final loss and its interval, of the rule `hopeless`"""
    best: float | None
    """The final loss that it could not beat"""
    best_run: str


def read_stop(sweep: SweepDirectory, entry: Entry) -> Stop | None:
    """The note of a trial that was ever stopped, under this config; raises Damaged for another
    file of the name."""
    path = _file(sweep, entry)
    if not path.is_file():
        return None
    names = Stop.__dataclass_fields__
    found = read_object(path, *names)
    stop = Stop(**{name: found[name] for name in names})
    return stop if stop.fingerprint == entry.fingerprint else None


def _file(sweep: SweepDirectory, entry: Entry) -> Path:
    return sweep.run(entry.name).path / FILE


def cell_of(sweep: SweepDirectory, entry: Entry) -> list[Entry]:
    """The other trials of its cell."""
    return [e for e in sweep.entries if e.name != entry.name and same_cell(e, entry)]


def same_cell(a: Entry, b: Entry) -> bool:
    """Whether two trials are compared: one size, about one compute, the same data."""
    (size, compute, data), (other_size, other_compute, other_data) = _place(a), _place(b)
    ratio = max(compute, other_compute) / min(compute, other_compute)
    return size == other_size and data == other_data and ratio <= SAME_COMPUTE


def _place(entry: Entry) -> tuple[int, float, tuple[str, ...]]:
    """Parameters, compute, and what of the data the sweep varies."""
    model = entry.config.model
    compute = flops.training_flops(model, make_timetable(entry.config).n_tokens, "exact")
    data = tuple(repr(v) for k, v in sorted(entry.varied.items()) if k.startswith("data."))
    return flops.count_parameters(model).n_params, compute, data


def final_loss(sweep: SweepDirectory, entry: Entry) -> float | None:
    """The final validation loss of a trial that is done."""
    if sweep.state(entry.name) != "done":
        return None
    value = (sweep.run(entry.name).read_result() or {}).get("validation_loss")
    return value if isinstance(value, float) and math.isfinite(value) else None


def can_be_stopped(sweep: SweepDirectory, entry: Entry) -> bool:
    """Whether a rule may stop the trial: a trunk is needed whole, and who was stopped once and is
    taken up again, or learns something else than the text, is trained to the end."""
    trunk = any(other.trunk == entry.fingerprint for other in sweep.entries)
    return not trunk and entry.config.is_pretraining and read_stop(sweep, entry) is None


class Rule:
    """A judge of one trial (`gpt_jax.train.judge.Judge`): asked at some shares of its tokens."""

    name = ""
    shares: Sequence[float] = ()

    def __init__(self, sweep: SweepDirectory, entry: Entry):
        self.sweep, self.entry = sweep, entry
        self.timetable: Timetable = make_timetable(entry.config)
        self._left = list(self.shares)

    def due(self, done: int) -> bool:
        share = self.timetable.tokens_before(done) / self.timetable.n_tokens
        passed = [s for s in self._left if s <= share]
        self._left = self._left[len(passed) :]
        if passed:
            self.share = passed[-1]
        return bool(passed)

    def verdict(self, done: int, history: History) -> str:
        """The reason to stop, which is noted in the trial's directory; empty to go on."""
        self.sweep.refresh()
        stop, why = self.judge(done, history)
        if stop is not None:
            write_json(_file(self.sweep, self.entry), asdict(stop))
        return why

    def judge(self, done: int, history: History) -> tuple[Stop | None, str]:
        raise NotImplementedError

    def stop(self, done: int, **more: Any) -> Stop:
        n_tokens = self.timetable.tokens_before(done)
        share = n_tokens / self.timetable.n_tokens
        empty = dict.fromkeys(("predicted", "low", "high", "best"))
        known = {**empty, "best_run": "", **more}
        return Stop(self.name, self.entry.fingerprint, done, n_tokens, share, **known)


class Hopeless(Rule):
    """Stops a trial whose predicted final loss cannot beat the best finished one of its cell."""

    name, shares = "hopeless", SHARES

    def __init__(self, sweep: SweepDirectory, entry: Entry, known: dict[str, FinishedRun]):
        super().__init__(sweep, entry)
        self.known = known
        """Finished runs that were read before, by name"""

    def judge(self, done: int, history: History) -> tuple[Stop | None, str]:
        others = cell_of(self.sweep, self.entry)
        losses = {e.name: loss for e in others if (loss := final_loss(self.sweep, e)) is not None}
        if not losses:
            return None, ""
        best = min(losses, key=lambda name: losses[name])
        finished = self._finished(others)
        steps = _steps_of(self.timetable, history)
        try:
            curve = from_steps(
                self.entry.name, steps, self._rates(), np.array(history.losses), STRETCHES
            )
            begun = beginning(scaled(curve), self.share)
            found = predict(begun, float(curve.rates.max()), self.share, finished)
        except ValueError:
            return None, ""  # too few steps after the warm-up to say anything
        if found is None or found.low <= losses[best]:
            return None, ""
        stop = self.stop(
            done, predicted=found.loss, low=found.low, high=found.high,
            best=losses[best], best_run=best,
        )  # fmt: skip
        return stop, (
            f"stopped early after {stop.share:.0%} of its tokens: predicted final loss "
            f"{found.loss:.4f}, {LEVEL}% [{found.low:.4f}, {found.high:.4f}], from "
            f"{found.n_finished} finished runs; {best} has {losses[best]:.4f}"
        )

    def _finished(self, cell: Sequence[Entry]) -> list[FinishedRun]:
        """Finished runs, those of the cell first, then others of this size, then the rest."""
        mine, names = _place(self.entry)[0], {e.name for e in cell}
        others = [e for e in self.sweep.entries if e.name not in names | {self.entry.name}]
        others.sort(key=lambda e: _place(e)[0] != mine)
        found = []
        for entry in [*cell, *others]:
            if entry.name not in self.known and (loss := final_loss(self.sweep, entry)) is not None:
                run = finished_run(self.sweep, entry, loss)
                if run is not None:
                    self.known[entry.name] = run
            if entry.name in self.known:
                found.append(self.known[entry.name])
        return found

    def _rates(self) -> Array:
        from gpt_jax.optim.schedule import learning_rate_schedule

        at = np.arange(self.timetable.n_steps)
        rates = np.asarray(learning_rate_schedule(self.entry.config, self.timetable)(at), float)
        return np.append(rates[:1], rates)


def finished_run(sweep: SweepDirectory, entry: Entry, loss: float) -> FinishedRun | None:
    """A finished trial with its curve; None where its records say too little."""
    try:
        records = [
            (r["step"], r["learning_rate"], r["loss"])
            for r in iterate_metrics(sweep.run(entry.name).metrics)
            if isinstance(r.get("loss"), float) and "learning_rate" in r
        ]
        steps, rates, losses = (np.array(column) for column in zip(*records, strict=True))
        filled = np.interp(np.arange(steps.max() + 1), steps, rates)
        curve = from_steps(entry.name, steps, filled, losses, STRETCHES)
        return FinishedRun(entry.name, scaled(curve), loss, float(curve.rates.max()))
    except ValueError:  # Damaged, no records, or too short
        return None


def _steps_of(timetable: Timetable, history: History) -> Array:
    """The number of each step whose loss the history has."""
    tokens = np.array([timetable.tokens_before(s) for s in range(timetable.n_steps + 1)])
    return np.searchsorted(tokens, np.array(history.tokens))


class Asha(Rule):
    """Stops a trial whose training loss at a rung is not among the best 1 / ETA of its cell."""

    name, shares = "asha", RUNGS

    def judge(self, done: int, history: History) -> tuple[Stop | None, str]:
        mine = rung_loss(history, self.share * self.timetable.n_tokens)
        others = []
        for entry in cell_of(self.sweep, self.entry):
            rung = self.share * make_timetable(entry.config).n_tokens
            try:
                loss = rung_loss(read_losses(self.sweep, entry), rung)
            except Damaged:
                continue
            if loss is not None:
                others.append(loss)
        if mine is None:
            return None, ""
        rank, count = 1 + sum(loss < mine for loss in others), 1 + len(others)
        if rank <= max(1, count // ETA):
            return None, ""
        return self.stop(done), (
            f"stopped early after {self.share:.0%} of its tokens: training loss {mine:.4f} is "
            f"number {rank} of {count} of its cell, the best {max(1, count // ETA)} go on"
        )


def read_losses(sweep: SweepDirectory, entry: Entry) -> History:
    """The training losses that a trial has written so far."""
    history = History()
    for record in iterate_metrics(sweep.run(entry.name).metrics):
        history.add(record)
    return history


def rung_loss(history: History, n_tokens: float) -> float | None:
    """Mean training loss before n_tokens; None for a run that has not come so far."""
    tokens, losses = np.array(history.tokens), np.array(history.losses)
    if not tokens.size or tokens[-1] < n_tokens:
        return None
    near = (tokens <= n_tokens) & (tokens > (1 - RUNG_WINDOW) * n_tokens)
    return float(losses[near].mean()) if near.any() else float(losses[tokens <= n_tokens][-1])


def make_rule(
    name: str, sweep: SweepDirectory, entry: Entry, known: dict[str, FinishedRun]
) -> Rule | None:
    """The judge of a trial by a rule's name; None for a trial that is trained to its end."""
    if not can_be_stopped(sweep, entry):
        return None
    return Hopeless(sweep, entry, known) if name == "hopeless" else Asha(sweep, entry)


def sample(sweep: SweepDirectory, share: float, seed: int) -> list[str]:
    """Trials of all that were ever stopped that are to be finished: so large a share, at least one,
    in an order that the seed and the trials decide; without those that are done."""
    stopped = [e for e in sweep.entries if read_stop(sweep, e) is not None]
    if not stopped or share <= 0:
        return []

    def rank(entry: Entry) -> str:
        return checksum(f"{seed}:{entry.fingerprint}")

    chosen = sorted(stopped, key=rank)[: max(1, round(share * len(stopped)))]
    return [e.name for e in chosen if sweep.state(e.name) == "stopped"]
