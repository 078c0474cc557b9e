"""Locks of files, which the kernel frees when their holder dies, and files that only one creates.

A lock is `flock`'s: it belongs to the open file, so two opens in one process exclude each other as
two processes do. Some network file systems have none. Must not import jax.
"""

import contextlib
import errno
import fcntl
import os
import secrets
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


def is_locked(path: Path) -> bool | None:
    """Whether somebody holds the lock of a file; None if that cannot be known."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    finally:
        os.close(descriptor)
    return False


def create_locked(path: Path, content: bytes) -> int | None:
    """Create a file that must not exist, with its content and its lock held from its first moment.

    Returns the descriptor, which holds the lock until it is closed; None if the file was there
    already. On a file system without locks the file is created unlocked.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.link(temporary, path)  # nobody sees it before, and it is not there twice
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, FileExistsError):
            return None
        raise
    finally:
        os.unlink(temporary)
    return descriptor
