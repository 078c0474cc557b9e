"""Python files of a user's that register entries: optimizers, changes of scores, sources, laws.

A config names them (`extensions`), a command line adds them (`--extension FILE`). A file is run
once a process. In a config it stands as PATH@DIGEST: the digest of its text is what a fingerprint
covers, and the run's directory has a copy, from which the run is loaded later, wherever the file
itself has gone. Must not import jax.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_jax.config import python_file
from gpt_jax.config.entries import REGISTERING
from gpt_jax.storage import paths
from gpt_jax.storage.atomic import write_atomically
from gpt_jax.storage.checksum import checksum, file_checksum

KIND = "extension"
FOLDER = "extensions"
"""Folder of a run's, or a sweep's, directory that holds the copies."""
DIGITS = 12


@dataclass(frozen=True)
class Extension:
    """A file that was run."""

    name: str
    text: str


_RUN: dict[str, Extension] = {}
"""Files that this process has run, by their digests."""
_COPIES: dict[str, Path] = {}
"""Copies in the directories that this process has looked at, by their digests."""


def run(given: str) -> str:
    """Run an extension unless this process has done so; returns PATH@DIGEST.

    given: a path, looked for in the working directory and beside the config that is being read, or
    PATH@DIGEST as a saved config has it. Raises ValueError for a file that is not there, that has
    another text than it had, or that fails.
    """
    path, _, digest = given.rpartition("@") if _has_digest(given) else (given, "", "")
    if digest in _RUN:
        return given
    file = _find(paths.local(path), digest)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{KIND} {file} is not UTF-8: {error.reason}") from None
    found = checksum(text)[:DIGITS]
    if digest and digest != found:
        raise ValueError(
            f"{KIND} {file} has changed: it had the digest {digest}, now {found}; bring it back, "
            f"or name the changed file anew (--extensions {path})"
        )
    if found not in _RUN:
        _execute(file, found)
        _RUN[found] = Extension(Path(path).name, text)
    return f"{path if _copy(found) == file else file}@{found}"


def _has_digest(given: str) -> bool:
    _, at, digest = given.rpartition("@")
    return bool(at) and len(digest) == DIGITS and not set(digest) - set("0123456789abcdef")


def _copy(digest: str) -> Path | None:
    return _COPIES.get(digest)


def _find(path: str, digest: str) -> Path:
    """The file, or its copy in a run's directory."""
    beside = python_file.folder_of_running()
    places = [Path(path), *([beside / path] if beside else [])]
    for place in places:
        if place.is_file() and not (digest and _digest_of(place) != digest and _copy(digest)):
            return place
    copy = _copy(digest)
    if copy is not None:
        return copy
    raise ValueError(f"no {KIND} {path}")


def _digest_of(file: Path) -> str:
    return file_checksum(file)[:DIGITS]


def _execute(file: Path, digest: str) -> None:
    """Run the file as a module of its own; it must not import files beside it, which the copy in a
    run's directory would lack."""
    name = f"gpt_jax_{KIND}_{digest}"
    module, execute = python_file.module_of(file, name)
    sys.modules[name] = module
    REGISTERING.append(digest)
    try:
        python_file.call(file, execute)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        REGISTERING.pop()


def run_all(value: Any) -> list[str]:
    """`run` of each of some paths: text with commas, or a list."""
    paths = [path for path in value.split(",") if path] if isinstance(value, str) else value
    return [run(path) for path in paths]


def digests(value: Iterable[str]) -> list[str]:
    """The part of `extensions` that a fingerprint covers: the digests."""
    return [path.rpartition("@")[2] for path in value]


def write_copies(value: Iterable[str], directory: Path) -> None:
    """Write the files of a config's `extensions` into the directory of a run or sweep."""
    for digest in digests(value):
        made = _RUN[digest]
        file = directory / FOLDER / f"{digest}-{made.name}"
        if not file.is_file():
            write_atomically(file, made.text)
        _COPIES.setdefault(digest, file)


def look_in(directory: Path) -> None:
    """Know the copies in the directory of a run or sweep, for configs that are read from it."""
    for file in sorted((directory / FOLDER).glob("*-*.py")):
        _COPIES.setdefault(file.name.partition("-")[0], file)
