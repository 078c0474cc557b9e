"""Where the files of a path are on this machine: the path itself, or a copy of what is in a bucket.

All but the first function do nothing for a path that is in no copy, which is every path of a run
on a disk; `copies.py` is imported where one is made. Must not import jax.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from gpt_jax import output
from gpt_jax.storage import paths

if TYPE_CHECKING:
    from gpt_jax.storage.copies import Copy

_copies: dict[Path, Copy] = {}
"""The copies of this process, by their directory."""


def on_disk(path: str | PurePath) -> Path:
    """A local path as it is; for an address, its copy on this machine, made at first use."""
    if not paths.is_address(path):
        return Path(path)
    from gpt_jax.storage import copies

    address = paths.given(path)
    assert isinstance(address, paths.Address)
    for copy in _copies.values():
        if address == copy.address or copy.address in address.parents:
            return copy.path / address.relative_to(copy.address)
    copy = copies.Copy(address)
    _copies[copy.path] = copy
    if named not in output.REWRITES:
        output.REWRITES.append(named)
    copy.refresh()
    return copy.path


def copy_of(path: Path) -> Copy | None:
    """The copy that a local path lies in."""
    if not _copies:
        return None
    absolute = path.absolute()
    found = [c for where, c in _copies.items() if where == absolute or where in absolute.parents]
    return found[0] if found else None


def refresh(path: Path, older_than: float = 0.0) -> None:
    """Fetch what changed beneath a path, if the last time was so many seconds ago."""
    if copy := copy_of(path):
        copy.refresh(copy.name_of(path), older_than)


def complete(path: Path) -> None:
    """Fetch the large files beneath a path, which are left in the bucket until they are read."""
    if copy := copy_of(path):
        copy.complete(copy.name_of(path))


def tag_of(path: Path) -> str:
    """The tag of the object that a file is a copy of; empty for any other file."""
    copy = copy_of(path)
    return copy.tag_of(copy.name_of(path)) if copy else ""


def put_back(path: Path) -> None:
    """Store the new and changed files beneath a path; delete nothing."""
    if copy := copy_of(path):
        copy.put_back(copy.name_of(path))


def commit(path: Path, final: bool = False) -> None:
    """Make the bucket hold what the directory of a run holds: data first, what seals them last.

    final: files that others write too (logs of trackers), and the metrics in one file.
    """
    if copy := copy_of(path):
        copy.commit(copy.name_of(path), final)


def named(text: str) -> str:
    """A message with addresses in place of their copies' paths."""
    for where, copy in _copies.items():
        text = text.replace(str(where), str(copy.address))
    return text
