"""How the processes of one run find each other, and end together.

What they compute is the same program, and they must call it alike: whoever leaves alone makes the
others wait. So they compare what they are about to do before the first step, and a process that
fails, is killed or freezes ends all of them, each with a line that names it
(`gpt_jax.parallel.companions`). Must not import jax at import time, nor flax.
"""

import contextlib
import json
import socket
import time
import traceback
from typing import NoReturn

from gpt_jax import failures
from gpt_jax.parallel import companions, processes
from gpt_jax.parallel.companions import Companions, Facts
from gpt_jax.parallel.processes import Place

HEARTBEAT_SECONDS = 90
"""Without a sign of life for so long, jax ends the run by a signal; `companions` is faster."""
WORD_SECONDS = 5.0
"""After a failed collective, time for the watch to notice whose fault it is."""


def join(where: Place, facts: Facts, wait: float) -> None:
    """Wait for the other processes of the run, and agree; before anything else is asked of jax.

    facts: what must be the same in all, named as the user knows it. Raises ValueError naming what
    differs, who did not come, or that nothing says who they are.
    """
    import jax

    if where.coordinator is not None:
        assert where.n_processes is not None
        assert where.number is not None
        host, _, port = where.coordinator.rpartition(":")
        host = host.strip("[]")
        processes.met(
            companions.meet(host, int(port), where.n_processes, where.number, facts, wait)
        )
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
    if processes.companions() is None and jax.process_count() > 1:
        processes.met(_meet_through_jax(facts, wait))


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


def leave(error: BaseException) -> NoReturn:
    """End this process after a failure, without waiting for the others; they end as well.

    A cause that is known is a line; anything else is shown with its traceback.
    """
    import jax

    failure = failures.tell(error, several=True)
    if failure is None:
        shown = "".join(traceback.format_exception(error)).rstrip()
        failure = failures.Failure(failures.UNFORESEEN, shown)
    others = processes.companions()
    if failure.status == failures.LOST and others is not None:
        time.sleep(WORD_SECONDS)  # the watch ends this process if it knows who is lost
    if others is not None:
        others.leave(failure.status, failure.line.rpartition("\n")[2])
    companions.end(jax.process_index(), jax.process_count(), *failure)
