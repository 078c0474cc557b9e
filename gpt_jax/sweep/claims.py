"""Claims that keep the workers of a sweep apart: numbered files in a trial's directory.

A claim is made by linking a file under the next number, which only one process can do; none is
ever taken back or reused, so that a worker that was thought dead finds a higher number than its
own. It carries a random identity, for names of hosts and numbers of processes are the same in two
containers, and its maker holds a lock on the file, which the kernel frees when it dies, and not
while it is paused. Where locks do not reach other hosts, the claim of another machine is also live
while its file is touched. In a bucket a claim is a lease of the same numbers (`storage.lease`).
Must not import jax.
"""

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gpt_jax.storage import places
from gpt_jax.storage.json_files import Damaged, read_object
from gpt_jax.storage.locks import create_locked, is_locked

if TYPE_CHECKING:
    from gpt_jax.storage.objects import Stat
    from gpt_jax.storage.paths import Address

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""A claim of another machine, whose lock is not seen here, is dead if it was not touched for so
long (its clock is not asked)."""


class Claim(Protocol):
    """The right to work on a trial, kept alive by a thread until it is released."""

    def is_held(self) -> bool:
        """False once another worker took the trial, because this one looked dead."""

    def release(self) -> None:
        """Give the trial back: others need not wait for the claim to look dead."""


@dataclasses.dataclass
class FileClaim:
    """A claim in a directory."""

    directory: Path
    number: int
    descriptor: int
    """Descriptor of the claim's file, which this process has locked."""

    def __post_init__(self) -> None:
        self._released = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def is_held(self) -> bool:
        return not self._released.is_set() and latest(self.directory) == self.number

    def release(self) -> None:
        if self._released.is_set():
            return
        self._released.set()
        (self.directory / f"{self.number:06}.released").touch()
        os.close(self.descriptor)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # gone, or the disk fails: the next may do
                os.utime(self.directory / f"{self.number:06}")


@contextlib.contextmanager
def released(claims: Sequence[Claim]) -> Iterator[None]:
    """Release the claims at the end of the block."""
    try:
        yield
    finally:
        for claim in claims:
            claim.release()


def live_claim(claims: Path) -> int | None:
    """The number of the claim that somebody is working under, if there is one."""
    number = latest(claims)
    path = claims / f"{number:06}"
    if number == 0 or is_released(claims):
        return None
    if found := _in_bucket(claims):
        from gpt_jax.storage import lease

        return number if lease.is_live(*found) else None
    locked = is_locked(path)
    if locked:
        return number
    if locked is False and owner(claims, number).get("machine") == _machine():
        return None  # the kernel that is asked is the one that ran it
    try:
        age = _file_system_time(claims) - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return number if age < STALE_SECONDS else None


def latest(claims: Path) -> int:
    """The highest number claimed; 0 if none is."""
    if found := _in_bucket(claims):
        from gpt_jax.storage import lease

        return lease.latest(found[1])
    names = os.listdir(claims) if claims.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def is_released(claims: Path) -> bool:
    """Whether the latest claim was given back."""
    if found := _in_bucket(claims):
        from gpt_jax.storage import lease

        return lease.is_released(*found)
    return (claims / f"{latest(claims):06}.released").exists()


def make_claim(claims: Path, number: int, identity: str) -> Claim | None:
    """A claim under this number; None if another process was faster."""
    if found := _in_bucket(claims):
        from gpt_jax.storage import lease

        return lease.create(found[0], number, identity)
    claims.mkdir(parents=True, exist_ok=True)
    said = {
        "identity": identity,
        "machine": _machine(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    descriptor = create_locked(claims / f"{number:06}", json.dumps(said).encode())
    return None if descriptor is None else FileClaim(claims, number, descriptor)


def _in_bucket(claims: Path) -> "tuple[Address, Mapping[str, Stat]] | None":
    """The folder of claims in a bucket, and its objects as of the last look at the sweep; None on a
    disk."""
    copy = places.copy_of(claims)
    if copy is None:
        return None
    name = copy.name_of(claims)
    return copy.address / name, copy.listed(name)


def _machine() -> str:
    """The kernel that runs this process: the same in all containers on it, and until it stops."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def owner(claims: Path, number: int) -> Mapping[str, Any]:
    """Who made a claim; empty if there is none, or it was cut short by a crash."""
    if found := _in_bucket(claims):
        from gpt_jax.storage import lease

        return lease.owner(found[0], number)
    try:
        return read_object(claims / f"{number:06}")
    except (OSError, Damaged):
        return {}


def _file_system_time(directory: Path) -> float:
    """Now by the clock of whoever stamps the files of a directory: hosts' clocks differ."""
    probe = directory / f".clock.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # a directory that we may only read
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
