"""Leases: the right of one process to write something in a bucket, which runs out when it dies.

    FOLDER/000002           a lease: who took it; of several that try, the server lets one create it
    FOLDER/000002.beat      put anew every BEAT_SECONDS by its holder
    FOLDER/000002.released  it was given back

The highest number counts and none is used twice, so a process that was taken for dead finds a
higher one than its own. A lease is live while its holder was heard of within LEASE_SECONDS, by the
server's clock; on the holder's own machine its process is looked for instead. Must not import jax.
"""

import dataclasses
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gpt_jax.errors import BucketFailed
from gpt_jax.storage.buckets import bucket_of
from gpt_jax.storage.locks import Held
from gpt_jax.storage.objects import Objects, Stat
from gpt_jax.storage.paths import Address

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0


@dataclasses.dataclass
class Lease:
    """A lease of this process, renewed by a thread until it is released."""

    folder: Address
    number: int
    with_each_beat: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self._released = threading.Event()
        self._lost = False
        self._beat_at = time.monotonic()
        threading.Thread(target=self._keep, daemon=True).start()

    def is_held(self) -> bool:
        """False once another process took it, because this one was not heard of: asks the
        bucket."""
        if self._released.is_set() or self._lost:
            return False
        if latest(bucket_of(self.folder).list(self.folder.key)) != self.number:
            self._lost = True
        return not self._lost

    def release(self) -> None:
        """Give it back: others need not wait for it to run out."""
        if not self._released.is_set():
            self._released.set()
            bucket_of(self.folder).put(f"{self.folder.key}/{self.number:06}.released", b"")

    def _keep(self) -> None:
        n = 0
        while not self._released.wait(BEAT_SECONDS):
            n += 1
            try:
                bucket_of(self.folder).put(f"{self.folder.key}/{self.number:06}.beat", b"%d" % n)
                if self.with_each_beat is not None and self.is_held():
                    self.with_each_beat()
            except (BucketFailed, ValueError):  # the next may arrive; what is due is told elsewhere
                continue


def latest(found: Mapping[str, Stat]) -> int:
    """The highest number among the objects of a lease's folder; 0 if there is none."""
    names = [key.rpartition("/")[2] for key in found]
    return max((int(name) for name in names if name.isdigit()), default=0)


def take(
    folder: Address,
    identity: str = "",
    *,
    wait: bool = False,
    with_each_beat: Callable[[], None] | None = None,
) -> Lease | None:
    """The lease of a folder; None if another process holds it, or was faster.

    wait: until a holder that is not heard of again has run out; one that is raises `Held`.
    """
    objects = bucket_of(folder)
    found = objects.list(folder.key)
    heard = _heard(found)
    while is_live(folder, found):
        if not wait:
            return None
        if _heard(found) != heard or _is_alive(owner(folder, latest(found))):
            raise Held(owner_text(folder, found))
        time.sleep(1)
        found = objects.list(folder.key)
    taken = create(folder, latest(found) + 1, identity, with_each_beat)
    if taken is None and wait:
        raise Held(owner_text(folder, objects.list(folder.key)))
    return taken


def create(
    folder: Address,
    number: int,
    identity: str,
    with_each_beat: Callable[[], None] | None = None,
) -> Lease | None:
    """The lease of this number; None if another process was faster."""
    said = json.dumps(_myself(identity)).encode()
    if not bucket_of(folder).create(f"{folder.key}/{number:06}", said):
        return None
    return Lease(folder, number, with_each_beat)


def is_released(folder: Address, found: Mapping[str, Stat]) -> bool:
    """Whether the last holder gave the lease back."""
    return f"{folder.key}/{latest(found):06}.released" in found


def is_live(folder: Address, found: Mapping[str, Stat]) -> bool:
    """Whether somebody holds the lease; found: what the bucket lists beneath its folder."""
    number = latest(found)
    if number == 0 or is_released(folder, found):
        return False
    alive = _is_alive(owner(folder, number))
    if alive is not None:
        return alive
    return server_time(folder) - _heard(found)[1] < LEASE_SECONDS


def _is_alive(holder: Mapping[str, str]) -> bool | None:
    """Whether a holder's process lives; None for one that is not seen from this one."""
    if (holder.get("boot"), holder.get("space")) != (_boot(), _space()):
        return None
    return _start_of(int(holder["pid"])) == holder["start"]


def _heard(found: Mapping[str, Stat]) -> tuple[int, float]:
    """The number of the latest lease, and when its holder was last heard of."""
    number = latest(found)
    mine = [stat.modified for key, stat in found.items() if f"/{number:06}" in f"/{key}"]
    return number, max(mine, default=0.0)


def owner(folder: Address, number: int) -> dict[str, str]:
    """Who took a lease; empty if there is none."""
    try:
        said: dict[str, str] = json.loads(bucket_of(folder).read(f"{folder.key}/{number:06}"))
    except (FileNotFoundError, ValueError):
        return {}
    return said


def owner_text(folder: Address, found: Mapping[str, Stat]) -> str:
    """Who holds the lease, in words."""
    said = owner(folder, latest(found))
    return f"process {said.get('pid', '?')} on {said.get('host', 'a host that is not known')}"


_offsets: dict[tuple[str, str], float] = {}


def server_time(folder: Address) -> float:
    """Now, by the server's clock: that of this machine may be wrong. It is asked once."""
    where = folder.scheme, folder.bucket
    if where not in _offsets:
        key = f"{folder.key}/.clock.{secrets.token_hex(4)}"
        objects: Objects = bucket_of(folder)
        try:
            objects.put(key, b"")
            stat = objects.stat(key)
        except ValueError:  # a bucket that this user may only read
            stat = None
        now = time.time() if stat is None else stat.modified
        _offsets[where] = now - time.monotonic()
        if stat is not None:
            objects.delete([key])
    return _offsets[where] + time.monotonic()


def _myself(identity: str) -> dict[str, str]:
    return {
        "identity": identity,
        "host": socket.gethostname(),
        "boot": _boot(),
        "space": _space(),
        "pid": str(os.getpid()),
        "start": _start_of(os.getpid()),
        "token": secrets.token_hex(8),
    }


def _boot() -> str:
    """The kernel that runs this process; something random where that cannot be known."""
    return _text_of("/proc/sys/kernel/random/boot_id") or _UNKNOWN


def _space() -> str:
    """The kernel's space of process numbers: containers have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return _UNKNOWN


_UNKNOWN = secrets.token_hex(8)


def _start_of(pid: int) -> str:
    """When a process of this machine began, in ticks of its clock; empty for one that is gone."""
    fields = _text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "" if not fields or fields[0] in "ZX" else fields[19]


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
