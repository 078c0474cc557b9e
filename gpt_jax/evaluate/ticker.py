"""Progress of an evaluation: a bar on a terminal, a line now and then elsewhere.

Must not import jax.
"""

import sys
import time
from typing import Self

from gpt_jax.runs.tracking import format_seconds

SECONDS_BETWEEN_LINES = 10.0


class Ticker:
    """Counts finished items; `known` of them were finished before."""

    def __init__(self, title: str, total: int, known: int):
        self._title, self._total, self._known = title, total, known
        self._done, self._began = known, time.monotonic()
        self._last, self._bar = self._began, None
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description} {task.completed:,}/{task.total:,}"),
                progress.BarColumn(),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(title, total=total, completed=known)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        elif self._known:
            text = f"{self._title}: {self._known:,} of {self._total:,} from the cache"
            print(text, file=sys.stderr, flush=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n: int = 1) -> None:
        self._done += n
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        elif now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            new = self._done - self._known
            left = (now - self._began) / max(1, new) * (self._total - self._done)
            print(
                f"{self._title}: {self._done:,} of {self._total:,}, "
                f"{new / (now - self._began):,.1f}/s, ETA {format_seconds(left)}",
                file=sys.stderr,
                flush=True,
            )
