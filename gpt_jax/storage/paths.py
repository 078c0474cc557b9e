"""Paths that a user gives: on a file system of this machine, under names that can be read again.

Must not import jax.
"""

import os
import re
from pathlib import Path

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}")
"""s3://bucket/run, and what pathlib makes of it: s3:/bucket/run."""
UNWRITABLE, UNREADABLE = "*?[]\\", "\\"
"""Characters in the path of a checkpoint with which it cannot be written, or read: Orbax looks for
the parts of what it wrote with a glob pattern, TensorStore takes a backslash for a separator."""


def local(text: str) -> str:
    """`text`, the path of something on a mounted file system.

    Raises ValueError for a path with a scheme (s3://, gs://, file://, ...), which would be read as
    a folder of that name, and for characters that no path can hold.
    """
    if scheme := SCHEME.match(text):
        rest = text[scheme.end() :]
        raise ValueError(
            f"{scheme[1]}://{rest} is not on a file system of this machine; give a local or "
            f"mounted path (without {scheme[1]}://)"
        )
    if "\0" in text or not _is_utf8(text):
        raise ValueError(f"{text!r} is no path: it has a null byte or is not UTF-8")
    return text


def check_run_directory(path: str | Path) -> None:
    """Refuse a directory whose checkpoints could be written, but not be read again.

    Raises ValueError naming what in the absolute path is in the way.
    """
    local(str(path))
    if found := _in_the_way(path, UNWRITABLE):
        raise ValueError(
            f"{path}: no run can be kept in {os.path.abspath(path)}, for checkpoints cannot be "
            f"written to a path with {found}; choose another --workdir or --name, or rename the "
            f"folder"
        )


def check_readable(path: str | Path) -> None:
    """Refuse a checkpoint that the library beneath would look for elsewhere.

    Raises ValueError naming what in the absolute path is in the way.
    """
    if found := _in_the_way(path, UNREADABLE):
        raise ValueError(f"{path}: checkpoints cannot be read from a path with {found}; rename it")


def _in_the_way(path: str | Path, characters: str) -> str:
    """Parts of the absolute path that Orbax cannot read again: characters, or a seeming scheme."""
    absolute = os.path.abspath(path)
    found = [character for character in characters if character in absolute]
    return " ".join(found + [part for part in Path(absolute).parts if part.endswith(":")])


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
