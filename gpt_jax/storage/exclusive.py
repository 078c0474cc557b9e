"""Files that only one process creates, and whether somebody holds a lock. Must not import jax."""

import contextlib
import errno
import fcntl
import os
import secrets
from pathlib import Path


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
