"""Files replaced at once: a reader, or a kill, finds the old content or the new, never a part.

Must not import jax.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt_jax.errors import WriteFailed


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what lies there at the end is synced and replaces `path`.

    After an error `path` is as it was, and nothing is left beside it. Raises WriteFailed naming it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        ours = (None, str(temporary), str(path))  # and not what the caller failed to read
        if isinstance(error, OSError) and error.filename in ours:
            raise WriteFailed(path, error) from error
        raise


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by this text, and make its directory; raises WriteFailed naming the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(path, error) from error
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any, *, allow_nan: bool = True) -> None:
    """Replace a file by a value as JSON.

    allow_nan: whether nan and infinities may be in it, which JSON has no word for; ValueError else.
    """
    write_atomically(path, json.dumps(value, indent=1, allow_nan=allow_nan) + "\n")
