"""Exit statuses, and failures told as one line with one of them. Must not import jax.

A scheduler may start a run again that ended with LOST, and one that ended with INTERRUPTED goes on
by the same command; after any other status the same would happen again.
"""

from typing import NamedTuple

from gpt_jax.errors import (
    DISK_ERRORS,
    WRITE_ERRORS,
    BucketFailed,
    Diverged,
    Lost,
    SaveFailed,
    WriteFailed,
)
from gpt_jax.runtime import INTERRUPTED, USER_ERROR

UNFORESEEN, DIVERGED, OUT_OF_MEMORY, DISK, LOST = 1, 3, 4, 5, 75

STATUSES = {
    0: "done",
    UNFORESEEN: "an error of the program, with its traceback; sweep run: a trial failed",
    USER_ERROR: "a mistake in what was asked for: the line says where",
    DIVERGED: "training diverged",
    OUT_OF_MEMORY: "out of memory, of a device or of the host",
    DISK: "a disk or bucket is full or fails: saved state is whole, the same command continues",
    LOST: "another process of the run was lost: start all again, they continue",
    INTERRUPTED: "told to stop (SIGTERM, Ctrl-C); saved, the same command continues",
}
"""Exit status -> cause."""

EPILOG = "exit statuses:\n" + "\n".join(f"  {n:>3}  {what}" for n, what in STATUSES.items())

UNREACHABLE = (
    "Gloo",
    "NCCL",
    "coordination service",
    "CoordinationService",
    "barrier",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "Connection closed by peer",
    "Connection reset by peer",
)
"""Words of failures to reach another process of the run: they come as several kinds of errors."""


class Failure(NamedTuple):
    """An exit status and the line that is said."""

    status: int
    line: str


def tell(error: BaseException, several: bool = False) -> Failure | None:
    """The cause of an error; None for one that was not foreseen: its traceback is of use.

    several: whether this is one of several processes of a run, which may be out of reach.
    """
    text = str(error).strip()
    first = text.partition("\n")[0]
    if isinstance(error, MemoryError) or _is_out_of_memory(error, text):
        return Failure(
            OUT_OF_MEMORY,
            f"out of memory: {first[:200] or 'of the host'}; a smaller model or "
            f"train.batch_sequences, more compute.microbatches, compute.remat or a larger mesh "
            f"needs less (gpt-jax plan CONFIG says how much)",
        )
    if isinstance(error, Lost):
        return Failure(LOST, lost(text))
    if several and any(word in text for word in UNREACHABLE):
        return Failure(LOST, lost(f"another process of the run: {first[:200]}"))
    if isinstance(error, Diverged):
        return Failure(DIVERGED, text)
    if isinstance(error, SaveFailed | BucketFailed) or (
        isinstance(error, OSError) and error.errno in DISK_ERRORS
    ):
        return Failure(DISK, _of_file(error))
    if isinstance(error, OSError):
        return Failure(USER_ERROR, _of_file(error))
    if isinstance(error, ValueError):
        return Failure(USER_ERROR, text)
    if isinstance(error, RecursionError):
        return Failure(USER_ERROR, f"nested too deeply: {first}")
    return None


def lost(what: str) -> str:
    """The line of a run that lost one of its processes."""
    return (
        f"lost {what}; start all of them again, on as many processes as there are: the run "
        f"continues from its last checkpoint"
    )


def _is_out_of_memory(error: BaseException, text: str) -> bool:
    """Whether jax says so: its errors are RuntimeErrors that begin with a code."""
    return isinstance(error, RuntimeError) and (
        "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
    )


def _of_file(error: OSError) -> str:
    """The path and the system's words, without its number."""
    if error.strerror is None or isinstance(error, WriteFailed):
        return str(error)
    where = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if error.filename is None or error.errno not in DISK_ERRORS:
        return where
    return f"cannot {'write' if error.errno in WRITE_ERRORS else 'read or write'} {where}"
