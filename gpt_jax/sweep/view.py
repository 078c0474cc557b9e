"""Display of a running sweep: a table on a terminal, plain lines elsewhere.

Must not import jax.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from gpt_jax.runs.tracking import format_seconds
from gpt_jax.storage.paths import Address
from gpt_jax.sweep.plan_text import NAME_WIDTH, shorten
from gpt_jax.sweep.status import TrialProgress, count, label

LINE_SECONDS = 30.0
"""Between plain lines on trials that go on."""
OTHER_COLUMNS = 52
"""Columns of a terminal beside the names of trials: bar, share, loss, time."""
SHOWN = 12
"""Running trials shown at once."""


class View(Protocol):
    def __enter__(self) -> "View": ...
    def __exit__(self, *error: object) -> None: ...
    def update(self, trials: Sequence[TrialProgress]) -> None: ...
    def say(self, text: str) -> None: ...


def make_view(path: Path | Address, trials: Sequence[TrialProgress]) -> View:
    """The view for this process's standard error, from the sweep's state when it starts."""
    clock = Clock(trials)
    return LiveView(path, clock) if sys.stderr.isatty() else PlainView(path, clock)


class Clock:
    """When the sweep will be done, from the FLOPs done since this process saw the first ones."""

    def __init__(self, trials: Sequence[TrialProgress]):
        self._began: float | None = None
        self._before = _done(trials)

    def seconds_left(self, trials: Sequence[TrialProgress]) -> float | None:
        """None before a second step was seen: start and compilation are no part of the pace."""
        done, now = _done(trials), time.monotonic()
        if self._began is None:
            if done > self._before:
                self._began, self._before = now, done
            return None
        since = done - self._before
        given_up = ("stopped", "diverged", "failed", "damaged")
        left = sum(t.flops * (1 - t.share) for t in trials if t.state not in given_up)
        if since <= 0:
            return None
        return left / since * (now - self._began)

    def text(self, trials: Sequence[TrialProgress]) -> str:
        """3 of 8 done, 1 running, 1 diverged   ETA 1:23"""
        counts = count(trials)
        parts = [f"{counts['done']} of {len(trials)} done"]
        parts += [f"{n} {label(state)}" for state, n in counts.items() if n and state != "done"]
        left = self.seconds_left(trials)
        eta = "" if left is None else f"   ETA {format_seconds(left)}"
        return ", ".join(parts) + eta


def _done(trials: Sequence[TrialProgress]) -> float:
    return sum(t.flops * t.share for t in trials)


class PlainView:
    """A line when a trial changes its state, and now and then one on those that go on."""

    def __init__(self, path: Path | Address, clock: Clock):
        self._path, self._clock = path, clock
        self._states: dict[str, str] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, trials: Sequence[TrialProgress]) -> None:
        if not self._states:
            self.say(f"{self._path}: {self._clock.text(trials)}")
        for trial in trials:
            name, before = trial.entry.name, self._states.get(trial.entry.name)
            if before is not None and before != trial.state:
                loss = "" if trial.loss is None else f", loss {trial.loss:.4f}"
                why = f": {trial.message}" if trial.message else ""
                self.say(f"{name}: {label(trial.state)}{loss}{why}   [{self._clock.text(trials)}]")
            self._states[name] = trial.state
        if time.monotonic() - self._last_line > LINE_SECONDS:
            running = [describe(t) for t in trials if t.state == "running"][:SHOWN]
            self.say("\n".join([*running, f"[{self._clock.text(trials)}]"]))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        self._last_line = time.monotonic()


class LiveView:
    """A table of the running trials and a line on all, drawn anew in place."""

    def __init__(self, path: Path | Address, clock: Clock):
        from rich.console import Console
        from rich.live import Live

        self._path, self._clock = path, clock
        self._states: dict[str, str] = {}
        self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def update(self, trials: Sequence[TrialProgress]) -> None:
        for trial in trials:
            name, before = trial.entry.name, self._states.get(trial.entry.name)
            if before not in (None, trial.state) and trial.state not in ("running", "pending"):
                loss = "" if trial.loss is None else f"  loss {trial.loss:.4f}"
                self.say(f"{label(trial.state):<9} {name}{loss}  {trial.message}".rstrip())
            self._states[name] = trial.state
        self._live.update(self._drawn(trials))

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _drawn(self, trials: Sequence[TrialProgress]) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        running = [t for t in trials if t.state == "running"]
        room = max(NAME_WIDTH, self._live.console.width - OTHER_COLUMNS)
        names = [trial.entry.name for trial in running[:SHOWN]]
        short = dict(zip(names, shorten(what_varies(names), room), strict=True))
        grid.add_column(no_wrap=True, min_width=max(map(len, short.values()), default=0))
        for trial in running[:SHOWN]:
            left = trial.seconds_left
            grid.add_row(
                Text(short[trial.entry.name]),
                ProgressBar(total=1.0, completed=trial.share, width=20),
                Text(f"{trial.share:.0%}", justify="right"),
                Text("" if trial.loss is None else f"loss {trial.loss:.4f}"),
                Text("" if left is None else f"ETA {format_seconds(left)}"),
            )
        if len(running) > SHOWN:
            grid.add_row(Text(f"and {len(running) - SHOWN} more"))
        whole = Table.grid()
        whole.add_row(grid)
        whole.add_row(Text(f"{self._path}: {self._clock.text(trials)}", style="bold"))
        return whole


def what_varies(names: Sequence[str]) -> list[str]:
    """Names of trials without the settings that all of them share; whole where they share all."""
    if len(set(names)) < 2:
        return list(names)
    parts = [name.split(",") for name in names]
    shared = set.intersection(*map(set, parts))
    return [",".join(part for part in of if part not in shared) for of in parts]


def describe(trial: TrialProgress) -> str:
    """One running trial on one line."""
    loss = "" if trial.loss is None else f"  loss {trial.loss:.4f}"
    left = trial.seconds_left
    eta = "" if left is None else f"  ETA {format_seconds(left)}"
    return f"  {trial.entry.name}  {trial.share:.0%}{loss}{eta}"
