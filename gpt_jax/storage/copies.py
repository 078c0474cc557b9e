"""Copies on this machine of what lies in a bucket, and how they are brought back there.

A program works on files; a `Copy` is a folder of this process with the small files of an address.
What is large and never changes (arrays of checkpoints, shards of tokens) stays in the bucket until
it is read, and goes through a cache of bounded size that the processes of a machine share. `commit`
makes the bucket hold what a run's directory holds, in an order in which a kill at any moment leaves
whole checkpoints only: data first, then what seals it: manifest.json, config.json, result.json.
A file that grows (metrics.jsonl) is stored as numbered parts that never change:

    metrics.jsonl.parts/000003-8192    what comes after its first 8192 bytes, as of part 3

Must not import jax.
"""

import atexit
import contextlib
import math
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import RLock
from typing import NamedTuple

from gpt_jax.errors import SaveFailed
from gpt_jax.runtime import cache_directory
from gpt_jax.storage.atomic import replacing
from gpt_jax.storage.buckets import bucket_of
from gpt_jax.storage.checksum import checksum
from gpt_jax.storage.lease import Lease, take
from gpt_jax.storage.locks import create_locked, is_locked
from gpt_jax.storage.objects import Objects, Stat
from gpt_jax.storage.paths import Address

CACHE_BYTES = "GPT_JAX_BUCKET_CACHE_BYTES"
"""Environment variable: the size of the cache of large objects."""
DEFAULT_CACHE_BYTES = 50 * 10**9
LOOKS = 5
"""Times that a place is listed where objects go before they are read."""
TRANSFERS = 8
"""Objects that are read or stored at a time."""
SEALS = ("manifest.json", "config.json", "result.json")
"""Files that say of others that they are whole, in the order in which they are stored: last."""
GROWING = "metrics.jsonl"
OTHERS = ("wandb", "tensorboard", "profile")
"""Folders of a run that other libraries write to at any time: stored at its end."""
OUTSIDE = ("claims", ".lease", ".lock", ".shards")
"""Files and folders that keep processes apart: no part of a copy."""
LARGE = re.compile(
    r"(?:^|/)(?:checkpoints/[0-9]+/(?!manifest\.json$)"
    r"|(?:train|validation|test)-[0-9]+(?:\.documents)?\.bin$)"
)
"""Arrays of checkpoints, and shards of tokens (`data.shards`)."""
STEP = re.compile(r"(?:.*/)?checkpoints/[0-9]+/")
PART = re.compile(r"(.*)\.parts/([0-9]+)-([0-9]+)")

Stamp = tuple[int, int]
"""Bytes and time of the last change of a local file."""


class Sent(NamedTuple):
    """Number of parts in the bucket, and the content that they add up to."""

    number: int
    length: int
    checksum: int


class Copy:
    """The folder (or the one file) of an address on this machine.

    Names are relative to the address; methods that take one act on it and what is beneath it.
    """

    def __init__(self, address: Address):
        self.address = address
        self.path = _folder() / address.scheme / address.bucket / address.key
        self._known: dict[str, Stat] = {}
        self._have: dict[str, tuple[str, Stamp]] = {}
        self._merged: dict[str, tuple[str, int]] = {}
        self._sent: dict[str, Sent] = {}
        self._leases: dict[str, Lease] = {}
        self._looked: dict[str, float] = {}
        self._lock = RLock()

    def name_of(self, path: Path) -> str:
        """The name of a path in the copy; empty for the copy itself."""
        name = path.absolute().relative_to(self.path).as_posix()
        return "" if name == "." else name

    def refresh(self, under: str = "", older_than: float = 0.0) -> None:
        """Fetch small files that are new or changed, and forget those that are gone; but not where
        this process holds the lease: there the copy is ahead of the bucket.

        older_than: do so only if the last time was so many seconds ago.
        """
        with self._lock:
            if time.monotonic() - self._looked.get(under, -math.inf) < older_than:
                return
            for left in reversed(range(LOOKS)):
                self._looked[under] = time.monotonic()
                try:
                    self._refresh(under)
                    return
                except FileNotFoundError:  # its writer has deleted it since it was listed
                    if not left:
                        raise

    def _refresh(self, under: str) -> None:
        found = {n: s for n, s in self._list(under).items() if not self._is_ours(n)}
        kept = {n: s for n, s in self._known.items() if not _beneath(n, under)}
        ours = {n: s for n, s in self._known.items() if self._is_ours(n)}
        self._known = kept | ours | found
        small = [n for n in found if not _is_hidden(n) and not LARGE.search(n)]
        self._each(self._fetch, [n for n in small if self._is_stale(n)])
        grown = {_grown(n) for n in found} - {""}
        for base in grown:
            self._merge(base)
        for name in [n for n in self._have if _beneath(n, under) and not self._is_ours(n)]:
            if name not in found and name not in grown:
                (self.path / name).unlink(missing_ok=True)
                del self._have[name]
                step = STEP.match(name)
                if step and step[0] + SEALS[0] not in found:  # it would look like a checkpoint
                    shutil.rmtree(self.path / step[0], ignore_errors=True)

    def look(self, under: str) -> None:
        """Note what others have stored, and fetch none of it."""
        with self._lock:
            self._known |= self._list(under)

    def listed(self, under: str) -> dict[str, Stat]:
        """Objects beneath a name by their keys, as of the last refresh."""
        with self._lock:
            return {self._key(n): s for n, s in self._known.items() if _beneath(n, under)}

    def tag_of(self, name: str) -> str:
        """The tag of the object that a file was fetched from, or stored as; empty for neither."""
        return self._have[name][0] if name in self._have else ""

    def complete(self, under: str) -> None:
        """Fetch the large files that are not here."""
        with self._lock:
            names = [n for n in self._known if _beneath(n, under) and LARGE.search(n)]
            missing = [n for n in names if not (self.path / n).exists()]
            self._each(self._fetch_through_cache, missing)

    def put_back(self, under: str) -> None:
        """Store the new and changed files; delete nothing."""
        with self._lock:
            local = self._local(under, final=True)
            self._each(self._put, [n for n, stamp in local.items() if self._has_changed(n, stamp)])

    @contextlib.contextmanager
    def taken(self, under: str) -> Iterator[None]:
        """The lease of a run's directory, and its files as the holder before left them.

        Raises lease.Held if another process is at work there.
        """
        folder = self.address / under / ".lease"
        lease = take(folder, wait=True, with_each_beat=lambda: self._grow(under))
        assert lease is not None
        try:
            self.refresh(under)
            self._leases[under] = lease
            yield
        finally:
            self._leases.pop(under, None)
            lease.release()

    def commit(self, under: str, final: bool = False) -> None:
        """Make the bucket hold what the copy holds. Raises SaveFailed if the lease is lost."""
        with self._lock:
            local = self._local(under, final)
            changed = [n for n, s in local.items() if self._has_changed(n, s)]
            growing = [n for n in changed if _grown(n)]
            changed = [n for n in changed if not _grown(n)]
            data = [n for n in changed if n.rpartition("/")[2] not in SEALS]
            gone = self._gone(under)
            self._check(under)
            self._each(self._put_part, growing)
            # A checkpoint whose data will change or go is none from here on.
            steps = {found[0] for n in data + gone if (found := STEP.match(n))}
            self._delete([n for n in self._known if n.removesuffix(SEALS[0]) in steps])
            self._each(self._put, data)
            self._check(under)
            for seal in SEALS:
                self._each(self._put, [n for n in changed if n.rpartition("/")[2] == seal])
            self._delete(gone)
            if final:
                for name in [n for n in local if _grown(n)]:
                    self._put(name)
                    self._delete([n for n in self._known if n.startswith(f"{name}.parts/")])
                    self._sent.pop(name, None)

    def _gone(self, under: str) -> list[str]:
        """Names in the bucket that the copy has no more, and what an unfinished save left there."""
        gone = [n for n in self._have if _beneath(n, under) and not (self.path / n).exists()]
        for name in self._known:
            step = STEP.match(name)
            if step and _beneath(name, under) and not (self.path / step[0] / SEALS[0]).exists():
                gone.append(name)
        return sorted(set(gone) & self._known.keys())

    def _check(self, under: str) -> None:
        lease = self._leases.get(under)
        if lease is not None and not lease.is_held():
            raise SaveFailed(
                f"{self.address / under}: another process has taken it over, for this one was not "
                f"heard of; nothing more is written there"
            )

    def _grow(self, under: str) -> None:
        """Store what a growing file has new, unless a commit is under way, which does it."""
        if under in self._leases and self._lock.acquire(blocking=False):
            try:
                self._put_part(f"{under}/{GROWING}".lstrip("/"))
            finally:
                self._lock.release()

    def _list(self, under: str) -> dict[str, Stat]:
        key = self._key(under)
        names = {
            k.removeprefix(self._key("")).lstrip("/"): s for k, s in self._bucket.list(key).items()
        }
        if not names and (stat := self._bucket.stat(key)):
            names[under] = stat
        return names

    @property
    def _bucket(self) -> Objects:
        return bucket_of(self.address)

    def _key(self, name: str) -> str:
        return (self.address / name).key if name else self.address.key

    def _is_ours(self, name: str) -> bool:
        return any(_beneath(name, under) for under in self._leases)

    def _is_stale(self, name: str) -> bool:
        have = self._have.get(name)
        return not _grown(name) and (have is None or have[0] != self._known[name].tag)

    def _has_changed(self, name: str, stamp: Stamp) -> bool:
        return name not in self._have or self._have[name][1] != stamp

    def _local(self, under: str, final: bool) -> dict[str, Stamp]:
        """Files of the copy that belong into the bucket."""
        top = self.path / under
        files = [top] if top.is_file() else sorted(top.rglob("*"))
        found = {}
        for file in files:
            name = self.name_of(file)
            other = bool(set(name.removeprefix(under).split("/")) & set(OTHERS))
            if _is_hidden(name) or (other and not final) or file.is_symlink():
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                if file.is_file():
                    found[name] = _stamp(file)
        return found

    def _fetch(self, name: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            self._bucket.download(self._key(name), temporary)
        modified = self._known[name].modified
        os.utime(path, (modified, modified))  # so that it looks the same in every copy
        self._have[name] = self._known[name].tag, _stamp(path)

    def _fetch_through_cache(self, name: str) -> None:
        path, stat = self.path / name, self._known[name]
        cached = cached_object(f"{self.address / name} {stat.tag}")
        if not cached.exists() or cached.stat().st_size != stat.size:
            make_room(stat.size)
            with replacing(cached) as temporary:
                self._bucket.download(self._key(name), temporary)
        os.utime(cached)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(cached, path)  # which stays when the cache makes room
        self._have[name] = stat.tag, _stamp(path)

    def _put(self, name: str) -> None:
        path = self.path / name
        stamp = _stamp(path)
        # What is small is read at once, so that it is one moment's content.
        content = path.read_bytes() if stamp[0] < 1 << 20 else path
        tag = self._bucket.put(self._key(name), content)
        self._have[name] = tag, stamp
        self._known[name] = Stat(stamp[0], tag, time.time())

    def _put_part(self, name: str) -> None:
        path = self.path / name
        if not path.exists():
            return
        stamp, content = _stamp(path), path.read_bytes()
        sent = self._sent.get(name, Sent(0, 0, 0))
        if zlib.crc32(content[: sent.length]) != sent.checksum or len(content) < sent.length:
            sent = Sent(sent.number, 0, 0)  # it was cut: a run went back to a checkpoint
        elif len(content) == sent.length:
            return
        part = f"{name}.parts/{sent.number + 1:06}-{sent.length}"
        tag = self._bucket.put(self._key(part), content[sent.length :])
        self._known[part] = Stat(len(content) - sent.length, tag, time.time())
        self._have[name] = "", stamp
        self._sent[name] = Sent(sent.number + 1, len(content), zlib.crc32(content))

    def _merge(self, base: str) -> None:
        """Write a growing file from its parts, or from those that are new."""
        found = [(int(p[2]), int(p[3]), p[0]) for n in self._known if (p := PART.fullmatch(n))
                 and p[1] == base]  # fmt: skip
        whole = self._known.get(base)
        tag, last = whole.tag if whole else "", max((part[0] for part in found), default=0)
        path, merged = self.path / base, self._merged.get(base)
        if merged == (tag, last):
            return
        done, content = 0, b""
        if merged is not None and merged[0] == tag:
            done, content = merged[1], path.read_bytes()
        elif whole is not None:
            content = self._bucket.read(self._key(base))
        for number, offset, part in sorted(found):
            if number > done:
                content = content[:offset] + self._bucket.read(self._key(part))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        self._merged[base], self._have[base] = (tag, last), (tag, _stamp(path))
        self._sent[base] = Sent(last, len(content), zlib.crc32(content))

    def _delete(self, names: Iterable[str]) -> None:
        names = list(names)
        self._bucket.delete([self._key(name) for name in names])
        for name in names:
            self._known.pop(name, None)
            self._have.pop(name, None)

    def _each(self, do: Callable[[str], None], names: list[str]) -> None:
        """Some at a time; the first error is raised."""
        if len(names) < 2:
            for name in names:
                do(name)
            return
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(do, names))


def _beneath(name: str, under: str) -> bool:
    return not under or name == under or name.startswith(f"{under}/")


def _is_hidden(name: str) -> bool:
    """Whether a name is of a lease, an unfinished file, or a part of another."""
    return any(
        part in OUTSIDE or part.startswith(".clock") or part.endswith((".tmp", ".parts"))
        for part in name.split("/")
    )


def _grown(name: str) -> str:
    """The growing file that a name is, or is a part of; empty for any other."""
    base = name.partition(".parts/")[0]
    return base if base.rpartition("/")[2] == GROWING else ""


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@cache
def _folder() -> Path:
    """The folder of this process's copies: deleted when it ends, or by another after a kill."""
    place = cache_directory().resolve() / "buckets" / "copies"
    place.mkdir(parents=True, exist_ok=True)
    for left in place.iterdir():
        if is_locked(left / ".lock") is False:
            shutil.rmtree(left, ignore_errors=True)
    own = place / secrets.token_hex(6)
    own.mkdir()
    create_locked(own / ".lock", b"")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def cached_object(what: str) -> Path:
    """The file of the cache for an object as it is now."""
    place = cache_directory() / "buckets" / "objects"
    place.mkdir(parents=True, exist_ok=True)
    return place / checksum(what)[:32]


def make_room(n_bytes: int) -> None:
    """Delete from the cache what was not used for the longest time, until so much more fits."""
    most = int(os.environ.get(CACHE_BYTES, DEFAULT_CACHE_BYTES))
    files = []
    for path in cached_object("").parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process makes room as well
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = n_bytes + sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            return
        path.unlink(missing_ok=True)
        total -= size
