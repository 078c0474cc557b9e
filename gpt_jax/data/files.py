"""Files of a corpus: a path that is given, and a digest of their state. Must not import jax.

`gpt_jax.data.folders` finds several.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_jax.storage.checksum import checksum
from gpt_jax.storage.places import named, on_disk

Files = Mapping[str, Path]


@dataclasses.dataclass(frozen=True)
class Found:
    """Files of a corpus by what becomes of them, and what to say about that."""

    train: Files
    validation: Files = dataclasses.field(default_factory=dict)
    """Held out because their names say so; none: the text is split."""
    unread: Files = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """One line each, for whoever builds the corpus."""

    @property
    def every(self) -> Files:
        """All of them, by name."""
        return dict(sorted({**self.train, **self.validation, **self.unread}.items()))


def expanded(path: str) -> Path:
    """The path with ~ as the home directory, or the copy of an address. Raises ValueError where
    that directory is not known."""
    try:
        return on_disk(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"data.path = {path}: {error}; write the path in full") from None


def identity(files: Files, *more: Any) -> str:
    """A digest of names, places, sizes and times of change."""
    parts = [repr(more)]
    for name, path in files.items():
        status = path.stat()
        place = named(str(path.resolve()))  # of a copy, its address
        entry = (name, place, status.st_size, status.st_mtime_ns)
        parts.append(repr(entry))
    return checksum("".join(parts))
