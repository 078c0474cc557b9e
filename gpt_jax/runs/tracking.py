"""Records of a run: metrics.jsonl, config.json, result.json, and mirrors of the metrics.

`metrics.jsonl` holds one line per step and one per validation; it is the truth, Weights & Biases
and TensorBoard mirror it. Files other than it are replaced atomically. Must not import jax.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from gpt_jax.output import say, silence
from gpt_jax.runs.history import History, keep_until, read_history
from gpt_jax.runs.history import Record as Record
from gpt_jax.runs.history import read_records as read_records
from gpt_jax.storage.atomic import replacing

PACKAGES = ("gpt-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
"""Versions written into config.json."""


def provenance() -> Record:
    """Where a run came from: command, time, machine, versions, commit of the code if known."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "commit": code_commit(),
    }


def versions() -> dict[str, str]:
    """The versions of the packages that decide what a run computes."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def code_commit() -> str | None:
    """The git commit of the checkout that this code runs from, with + if it was changed."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+" * bool(changed)


class Mirror(Protocol):
    """Somebody else who is told the metrics."""

    def log(self, record: Record) -> None: ...
    def close(self, finished: bool) -> None: ...


class MetricsLog:
    """metrics.jsonl of a run, continued after `done_steps` steps, and its mirrors.

    Records of steps beyond done_steps (written after the checkpoint that is resumed from) are
    dropped: they are computed again. Of the processes of one run, one writes: the others only
    remember. What is remembered of the records is their `History`.
    """

    def __init__(
        self,
        path: Path,
        done_steps: int,
        mirrors: list[Mirror] | None = None,
        writes: bool = True,
    ):
        self.history = read_history(path, done_steps)
        self.mirrors = mirrors or []
        self._path = path
        self._file: TextIO | None = None
        if writes:
            with self._named():
                path.parent.mkdir(parents=True, exist_ok=True)
                keep_until(path, done_steps)
                self._file = path.open("a", buffering=1)

    def log(self, record: Record) -> None:
        """Write one record; it holds `step`, the number of steps done. Raises OSError, naming the
        file, if that fails."""
        if self._file is not None:
            with self._named():
                self._file.write(json.dumps(record) + "\n")
        self.history.add(record)
        for mirror in self.mirrors:
            mirror.log(record)

    def sync(self) -> None:
        """Put what was written onto the disk: a checkpoint that outlives a power cut must not come
        after steps whose records did not."""
        if self._file is not None:
            with self._named():
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self, finished: bool) -> None:
        if self._file is not None:
            self._file.close()
        for mirror in self.mirrors:
            mirror.close(finished)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self._path}: {error.strerror}") from error


@dataclasses.dataclass
class Progress:
    """Values shown by a run's progress bar and progress lines."""

    step: int
    n_steps: int
    loss: float
    tokens_per_second: float
    mfu: float | None
    seconds_left: float
    validation_loss: float | None = None

    def text(self) -> str:
        parts = [f"loss {self.loss:.4f}", f"{self.tokens_per_second:,.0f} tokens/s"]
        if self.mfu is not None:
            parts.append(f"MFU {self.mfu:.0%}")
        if self.validation_loss is not None:
            parts.append(f"validation {self.validation_loss:.4f}")
        parts.append(f"ETA {format_seconds(self.seconds_left)}")
        return "  ".join(parts)


class ProgressReport:
    """A bar on a terminal, elsewhere a plain line now and then; nothing if not `spoken`."""

    def __init__(
        self, n_steps: int, done_steps: int, line_due: Callable[[int], bool], spoken: bool = True
    ):
        self._line_due, self._bar, self._spoken = line_due, None, spoken
        if spoken and _is_terminal():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("step {task.completed:,}/{task.total:,}"),
                progress.BarColumn(),
                progress.TextColumn("{task.description}"),
                progress.TimeElapsedColumn(),
                console=Console(stderr=True),
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("compiling", total=n_steps, completed=done_steps)
            self._bar.start()

    def update(self, state: Progress) -> None:
        if self._bar is not None:
            with self._watched():
                self._bar.update(self._task, completed=state.step, description=state.text())
        elif self._line_due(state.step):
            step = f"step {state.step:>{len(str(state.n_steps))}}/{state.n_steps}"
            self.say(f"{step}  {state.text()}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self._spoken:
            return
        if self._bar is not None:
            with self._watched():
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def close(self) -> None:
        if self._bar is not None:
            with self._watched():
                self._bar.stop()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """As long as there is a terminal; without one the bar goes on in silence."""
        try:
            yield
        except (OSError, ValueError):
            silence()


def _is_terminal() -> bool:
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def format_seconds(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


SCORE = "validation_score_"
"""Prefix of a task's accuracy in the record of a validation."""


def draw_loss_curve(history: History, path: Path, title: str) -> None:
    """Training loss (smoothed over the raw) and validation loss against tokens, as PNG; below them
    the accuracy of the tasks that were scored along the way."""
    from matplotlib.figure import Figure

    valid = finite_values(history.validations, "validation_loss")
    tasks = list(dict.fromkeys(n for r in history.validations for n in r if n.startswith(SCORE)))
    figure = Figure(figsize=(7, 6 if tasks else 4), dpi=120, layout="constrained")
    heights = [3, 2] if tasks else [1]
    axes, *below = figure.subplots(len(heights), squeeze=False, sharex=True, height_ratios=heights)[
        :, 0
    ]
    if history.losses:
        axes.plot(history.tokens, history.losses, color="C0", alpha=0.25, linewidth=0.8)
        axes.plot(history.tokens, smooth(history.losses), color="C0", label="training")
    if valid:
        tokens, losses = zip(*valid, strict=True)
        marker = "o" if len(valid) < 60 else ""
        axes.plot(tokens, losses, color="C3", marker=marker, markersize=4, label="validation")
        last = f"{losses[-1]:.3f}"
        axes.annotate(
            last, (tokens[-1], losses[-1]), (-6, 6), textcoords="offset points", ha="right"
        )
    axes.set(ylabel="loss (nats per token)", title=title)
    axes.grid(alpha=0.3)
    if history.losses or valid:
        axes.legend()
    for scores in below:
        for name in tasks:
            points = finite_values(history.validations, name)
            scores.plot(
                *zip(*points, strict=True), marker="o", markersize=4, label=name[len(SCORE) :]
            )
        scores.set(ylabel="accuracy")
        scores.grid(alpha=0.3)
        scores.legend()
    [axes, *below][-1].set(xlabel="training tokens")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential mean with a memory of 2% of the run, corrected for its start."""
    keep = 1 - 1 / max(1.0, 0.02 * len(values))
    mean, weight, smoothed = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(mean / weight)
    return smoothed


def finite(values: Mapping[str, float]) -> Record:
    """Numbers fit for JSON: what is not finite becomes a string that says so."""
    return {k: v if math.isfinite(v) else str(v) for k, v in values.items()}


def finite_values(records: list[Record], name: str) -> list[tuple[int, float]]:
    """(tokens, value) of the records that have a number of this name: undoes `finite`."""
    return [(r["tokens"], r[name]) for r in records if isinstance(r.get(name), float)]
