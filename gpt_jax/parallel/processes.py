"""Several processes of one run: which one this is, what all agree on, and who writes.

Each process has its own devices; jax makes one mesh of all. How they find each other and end
together is in `gpt_jax.parallel.meeting`, which a run of one process does not import. Must not
import jax at import time, nor flax.
"""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gpt_jax.parallel.companions import Companions

JOIN_SECONDS = 300.0
"""How long the processes of a run wait for each other at the start, unless told otherwise."""
_companions: "Companions | None" = None
"""The other processes of the run, once they have met; None for a process by itself."""


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


def met(companions: "Companions") -> None:
    """Note the other processes of the run, with which this one has met."""
    global _companions
    _companions = companions


def companions() -> "Companions | None":
    """The other processes of the run; None for a process by itself."""
    return _companions


def agree(facts: Mapping[str, Any]) -> None:
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
