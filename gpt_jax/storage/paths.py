"""Paths that a user gives: on a file system of this machine, or in a bucket (an `Address`), under
names that can be read again.

Must not import jax.
"""

import importlib.util
import os
import re
from pathlib import Path, PurePath, PurePosixPath

BUCKETS = {"gs": ("google.cloud.storage", "gcs"), "s3": ("obstore", "s3")}
"""Scheme of a bucket -> the package that reaches it, and the extra that installs it."""
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}")
"""s3://bucket/run, and what pathlib makes of it: s3:/bucket/run."""
UNWRITABLE, UNREADABLE = "*?[]\\", "\\"
"""Characters in the path of a checkpoint with which it cannot be written, or read: Orbax looks for
the parts of what it wrote with a glob pattern, TensorStore takes a backslash for a separator."""


class Address(PurePosixPath):
    """gs://bucket/key or s3://bucket/key: a name in a bucket, with the arithmetic of a path."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    @property
    def scheme(self) -> str:
        return self.parts[0].removesuffix(":")

    @property
    def bucket(self) -> str:
        return self.parts[1]

    @property
    def key(self) -> str:
        """The name within the bucket."""
        return "/".join(self.parts[2:])

    def absolute(self) -> "Address":
        """Itself, as for a path."""
        return self


def given(text: str | PurePath) -> Path | Address:
    """A path as a user gave it: local, or the address of something in a bucket.

    Raises ValueError for a scheme that is not supported, one whose library is not installed, and
    for what names no object.
    """
    text = str(text)
    scheme = SCHEME.match(text)
    if scheme is None:
        return Path(local(text))
    if scheme[1] not in BUCKETS:
        raise ValueError(
            f"{scheme[1]}://{text[scheme.end() :]}: {scheme[1]}:// is not supported; give a local "
            f"path, or one that begins with {' or '.join(f'{name}://' for name in BUCKETS)}"
        )
    address = Address(text)
    if len(address.parts) < 3 or ".." in address.parts or "\0" in text:
        raise ValueError(f"{address} names no object; give {scheme[1]}://BUCKET/NAME")
    package, extra = BUCKETS[scheme[1]]
    if not _is_installed(package):
        raise ValueError(
            f"{address}: {scheme[1]}:// needs the Python package {package}; install it with "
            f"pip install 'gpt-jax[{extra}]'"
        )
    return address


def anywhere(text: str) -> str:
    """`text`, a path that `given` takes: the check of a field."""
    given(text)
    return text


def is_address(path: str | PurePath) -> bool:
    """Whether a path is in a bucket, as far as its beginning says."""
    scheme = SCHEME.match(str(path))
    return scheme is not None and scheme[1] in BUCKETS


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # google, of google.cloud.storage
        return False


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
