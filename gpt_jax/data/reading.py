"""A corpus's files read as bytes, uncompressed. Must not import jax."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gpt_jax.storage.compressed import open_bytes


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, uncompressed; what the system says against it names the file."""
    try:
        with open(path, "rb") as stream:
            yield open_bytes(path, stream)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
