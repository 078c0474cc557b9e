"""Locks of files, which the kernel frees when their holder dies.

A lock is `flock`'s: it belongs to the open file, so two opens in one process exclude each other as
two processes do. Some network file systems have none. Must not import jax.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Held(Exception):
    """Somebody else holds the lock; the message says who, or which lock."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """The lock of a file, which is created where it is missing, or of an existing directory.

    wait: for its holder, and go on unlocked on a file system without locks; else `Held` is raised
    where somebody holds it. Raises OSError for a path that cannot be opened.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_CREAT | os.O_RDWR
    descriptor = os.open(path, flags)
    try:
        if wait:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Held(path) from None
        yield
    finally:
        os.close(descriptor)
