"""Several processes of one run: how they find each other, agree, and end together.

Each process has its own devices; jax makes one mesh of all. What they compute is the same program,
and they must call it alike: whoever leaves alone makes the others wait. So they compare what they
are about to do before the first step, and a process that fails, is killed or freezes ends all of
them, each with a line that names it (`gpt_jax.parallel.companions`). Must not import jax at import
time, nor flax.
"""

import argparse
import contextlib
import json
import socket
import time
import traceback
from typing import NamedTuple, NoReturn

from gpt_jax import failures
from gpt_jax.parallel import companions
from gpt_jax.parallel.companions import Companions, Facts

HEARTBEAT_SECONDS = 90
"""Without a sign of life for so long, jax ends the run by a signal; `companions` is faster."""
JOIN_SECONDS = 300.0
"""How long the processes of a run wait for each other at the start, unless told otherwise."""
WORD_SECONDS = 5.0
"""After a failed collective, time for the watch to notice whose fault it is."""

_companions: Companions | None = None
"""The other processes of the run, from `join` on; None for a process by itself."""


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
    parser.add_argument(
        "--join-seconds",
        type=float,
        default=JOIN_SECONDS,
        metavar="S",
        help=f"how long the processes wait for each other at the start (default: "
        f"{JOIN_SECONDS:.0f})",
    )


def place(arguments: argparse.Namespace) -> Place | None:
    """This process's place in the run, from the command line; None if the run has one process.

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
    port = given.coordinator.rpartition(":")[2]
    if not port.isdecimal() or not 0 < int(port) < 1 << 16 or port == given.coordinator:
        raise ValueError(f"--coordinator {given.coordinator}; it is HOST:PORT, as in node1:5000")
    if not 0 <= given.number < given.n_processes:
        raise ValueError(
            f"--process {given.number} of --processes {given.n_processes}; allowed: 0 to "
            f"{given.n_processes - 1}"
        )
    return given


def join(where: Place, facts: Facts, wait: float = JOIN_SECONDS) -> None:
    """Wait for the other processes of the run, and agree; before anything else is asked of jax.

    facts: what must be the same in all, named as the user knows it. Raises ValueError naming what
    differs, who did not come, or that nothing says who they are.
    """
    global _companions
    import jax

    if where.coordinator is not None:
        assert where.n_processes is not None
        assert where.number is not None
        host, _, port = where.coordinator.rpartition(":")
        host = host.strip("[]")
        _companions = companions.meet(host, int(port), where.n_processes, where.number, facts, wait)
    try:
        jax.distributed.initialize(
            where.coordinator,
            where.n_processes,
            where.number,
            initialization_timeout=int(wait),
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
            f"the processes of the run did not meet within {wait:.0f} s: {reason}"
        ) from None
    if _companions is None and jax.process_count() > 1:
        _companions = _meet_through_jax(facts, wait)


def _meet_through_jax(facts: Facts, wait: float) -> Companions:
    """The same where jax knows the processes: process 0 tells its addresses by a collective."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    number, n_processes = jax.process_index(), jax.process_count()
    told = np.zeros(1024, np.uint8)
    if number == 0:
        with companions.listen(0) as free:
            port = free.getsockname()[1]
        hosts = [socket.getfqdn(), socket.gethostname()]
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
            hosts += [str(address[0]) for *_, address in found]
        text = json.dumps([port, list(dict.fromkeys(hosts))]).encode()
        told[: len(text)] = np.frombuffer(text, np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(told), np.uint8)
    port, hosts = json.loads(told.tobytes().rstrip(b"\0"))
    host = next((host for host in hosts if _reaches(host, port)), hosts[0]) if number else hosts[0]
    return companions.meet(host, port, n_processes, number, facts, wait)


def _reaches(host: str, port: int, tries: int = 10) -> bool:
    """Whether something listens there, for whom a caller that says nothing is a stranger."""
    for _ in range(tries):
        try:
            socket.create_connection((host, port), 1.0).close()
            return True
        except socket.gaierror:
            return False
        except OSError:
            time.sleep(0.2)
    return False


def agree(facts: Facts) -> None:
    """Go on once all processes of the run have said the same facts.

    Nothing to do in a run of one. Raises ValueError naming the first ones that differ.
    """
    if _companions is not None:
        _companions.agree(facts)


def finish() -> None:
    """Tell the other processes of the run that this one has done its part."""
    if _companions is not None:
        _companions.close()


def is_writer() -> bool:
    """Whether this process writes and speaks for the run: the first one does."""
    import jax

    return jax.process_index() == 0


def leave(error: BaseException) -> NoReturn:
    """End this process after a failure, without waiting for the others; they end as well.

    A cause that is known is a line; anything else is shown with its traceback.
    """
    import jax

    failure = failures.tell(error, several=True)
    if failure is None:
        shown = "".join(traceback.format_exception(error)).rstrip()
        failure = failures.Failure(failures.UNFORESEEN, shown)
    if failure.status == failures.LOST and _companions is not None:
        time.sleep(WORD_SECONDS)  # the watch ends this process if it knows who is lost
    if _companions is not None:
        _companions.leave(failure.status, failure.line.rpartition("\n")[2])
    companions.end(jax.process_index(), jax.process_count(), *failure)
