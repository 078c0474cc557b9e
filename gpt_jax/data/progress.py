"""Progress of a long piece of data preparation: a bar on a terminal, lines elsewhere.

Must not import jax.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

SECONDS_BETWEEN_LINES = 5.0


@contextlib.contextmanager
def report_bytes(title: str, total: int | None, enabled: bool) -> Iterator[Callable[[int], None]]:
    """Yields advance(n_bytes). The total is in bytes of text; None where it is not known."""
    if not enabled:
        yield lambda n_bytes: None
    elif sys.stderr.isatty():
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total)


@contextlib.contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda n_bytes: bar.advance(task, n_bytes)


def _lines(title: str, total: int | None) -> Callable[[int], None]:
    """A line every few seconds: a short job prints none."""
    done, last = 0, time.monotonic()

    def advance(n_bytes: int) -> None:
        nonlocal done, last
        done += n_bytes
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            share = f" ({done / total:.0%})" if total else ""
            print(f"{title}: {done / 1e6:,.1f} MB{share}", file=sys.stderr, flush=True)

    return advance
