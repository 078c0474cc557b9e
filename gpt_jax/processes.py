"""Several processes of one run: how they find each other, agree, and end together.

Each process has its own devices; jax makes one mesh of all. What they compute is the same program,
and they must call it alike: whoever leaves alone makes the others wait. So a process that fails
ends at once, and the others notice: their next collective fails, or the heartbeats that the
coordinator (process 0) counts stay out. Must not import jax at import time, nor flax.
"""

import argparse
import os
import sys
import traceback
from typing import NamedTuple, NoReturn

from gpt_jax.runtime import USER_ERROR

HEARTBEAT_SECONDS = 30
"""Without a sign of life for so long, a process counts as dead, and the run ends."""
JOIN_SECONDS = 300
"""How long the processes of a run wait for each other at the start."""
COLLECTIVES = ("Gloo", "NCCL", "coordination service", "barrier")
"""Words of failures to reach another process that come as other errors too."""
LOST = 75
"""Exit status of a process whose run lost another one (EX_TEMPFAIL: start again)."""


class Place(NamedTuple):
    """Which of the processes of a run this is; all None = found by jax (Slurm, TPU pod, MPI)."""

    coordinator: str | None = None
    """HOST:PORT at which process 0 can be reached."""
    n_processes: int | None = None
    number: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes of a run, as Slurm, a TPU pod or MPI say: start it on each",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 can be reached, for processes started by hand, with the next two",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="processes of the run")
    parser.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")


def place(arguments: argparse.Namespace) -> Place | None:
    """What the command line says of the processes of the run; None: there is one.

    Raises ValueError unless all three options are given, or none.
    """
    given = Place(arguments.coordinator, arguments.processes, arguments.process)
    if given == Place():
        return given if arguments.distributed else None
    names = dict(zip(("--coordinator", "--processes", "--process"), given, strict=True))
    missing = [name for name, value in names.items() if value is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} missing: processes started by hand need --coordinator "
            f"HOST:PORT --processes N --process I; under Slurm, MPI or on a TPU pod: --distributed"
        )
    assert given.coordinator is not None
    assert given.n_processes is not None
    assert given.number is not None
    if not given.coordinator.rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator {given.coordinator}; it is HOST:PORT, as in node1:5000")
    if not 0 <= given.number < given.n_processes:
        raise ValueError(
            f"--process {given.number} of --processes {given.n_processes}; allowed: 0 to "
            f"{given.n_processes - 1}"
        )
    return given


def join(where: Place) -> None:
    """Wait for the other processes of the run; before anything else is asked of jax.

    Raises ValueError if they do not come, or nothing says who they are.
    """
    import jax

    try:
        jax.distributed.initialize(
            where.coordinator,
            where.n_processes,
            where.number,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError:
        raise ValueError(
            "--distributed: neither Slurm, MPI nor a TPU pod says which processes there are; give "
            "--coordinator HOST:PORT --processes N --process I"
        ) from None
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the processes of the run did not meet within {JOIN_SECONDS} s: {reason}"
        ) from None


def is_writer() -> bool:
    """Whether this process writes and speaks for the run: the first one does."""
    import jax

    return jax.process_index() == 0


def leave(error: BaseException) -> NoReturn:
    """End this process after a failure, without waiting for the others; they end as well.

    A user's mistake and a lost process are a line; anything else is shown with its traceback.
    """
    import jax

    mine, n_processes = jax.process_index(), jax.process_count()
    by_runtime = isinstance(error, jax.errors.JaxRuntimeError)
    if by_runtime or any(word in str(error) for word in COLLECTIVES):
        status = LOST
        said = (
            f"lost another process of the run: {str(error).strip().partition(chr(10))[0][:200]}\n"
            f"gpt-jax: start it again, on as many processes as there are: it continues from the "
            f"last checkpoint"
        )
    elif isinstance(error, (ValueError, OSError)):
        status, said = USER_ERROR, str(error)
    else:
        status, said = 1, "".join(traceback.format_exception(error)).rstrip()
    print(f"gpt-jax: process {mine} of {n_processes}: {said}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)  # an orderly end waits for processes that may be gone
