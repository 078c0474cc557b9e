"""Files that are there whole or not at all, and a directory for one builder at a time. No jax."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt_jax.errors import DISK_ERRORS, WriteFailed
from gpt_jax.storage import locks
from gpt_jax.storage.atomic import replacing


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits for another builder of the same directory; the kernel frees a dead one's lock."""
    with contextlib.ExitStack() as stack:
        with writing(directory):
            stack.enter_context(locks.locked(directory, wait=True))
        yield


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


def write(path: Path, content: Iterable[Any]) -> None:
    """Puts a whole file in place, or none; content: bytes and arrays, one after the other."""
    with writing(path), replacing(path) as temporary, open(temporary, "wb") as stream:
        for data in content:
            stream.write(data)


def write_json(path: Path, content: Any) -> None:
    write(path, [(json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()])
