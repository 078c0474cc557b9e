"""Files that are there whole or not at all, and a directory for one builder at a time. No jax."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpt_jax.failures import DISK_ERRORS, WriteFailed
from gpt_jax.storage.atomic import replacing


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits for another builder of the same directory; the kernel frees a dead one's lock."""
    with writing(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: see the module's head
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Name the place in an error of the system: WriteFailed where its disk is full or fails, else
    a ValueError."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise WriteFailed(place, error) from None
        raise ValueError(
            f"cannot write {place}: {error.strerror}; choose another place (--output, data.cache)"
        ) from None


def sha256(arrays: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.data)
    return digest.hexdigest()


def write(path: Path, content: Iterable[Any]) -> None:
    """Puts a whole file in place, or none; content: bytes and arrays, one after the other."""
    with writing(path), replacing(path) as temporary, open(temporary, "wb") as stream:
        for data in content:
            stream.write(data)


def write_json(path: Path, content: Any) -> None:
    write(path, [(json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()])
