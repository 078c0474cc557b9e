"""Lines for whoever watches: that nobody does, or no longer, must not end a computation."""

import contextlib
import os
import sys
from collections.abc import Callable

REWRITES: list[Callable[[str], str]] = []
"""Applied to every line: what lies in a bucket is named by its address, not by its copy here."""


def say(text: str) -> None:
    """A line on stderr, if it can be written."""
    if sys.stderr is None:  # closed before we started
        return
    try:
        print(rewritten(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # a broken pipe, a full disk, a terminal that is gone; closed
        silence()
    except RuntimeError:  # a signal's handler, called while another line was being written
        pass


def rewritten(text: str) -> str:
    """A line as users read it: REWRITES are applied."""
    for rewrite in REWRITES:
        text = rewrite(text)
    return text


def silence() -> None:
    """Send stderr to nobody from now on: what is left in its buffer must not fail once more when
    the process ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
