"""Which shards this machine has read and found to be as their manifests say: each is read once.

A file is known by its size, inode and times of change, which an edit in place changes; one of a
bucket by its object's tag. Kept in
the user's cache directory; where that cannot be written, shards are read at every start. Must
not import jax.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from gpt_jax.data.shards import Corpus, check_hash
from gpt_jax.runtime import cache_directory
from gpt_jax.storage import places
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.checksum import checksum

State = list[int | str]


def verify_once(corpus: Corpus, *, progress: bool = True) -> Corpus:
    """The corpus, each of whose files has been compared with its hash on this machine.

    Raises ValueError naming the first file that is not what the manifest says.
    """
    known, place = _known(corpus), _place(corpus)
    unknown = {
        path: sha256
        for shards in corpus.splits
        for path, sha256 in shards.hashes()
        if known.get(path.name) != _state(path, sha256)
    }
    if unknown:
        from gpt_jax.data.progress import report_bytes

        total = sum(path.stat().st_size for path in unknown)
        with report_bytes(f"checking {corpus.directory}", total, progress) as advance:
            for path, sha256 in unknown.items():
                state = _state(path, sha256)
                check_hash(path, sha256)
                known[path.name] = state
                advance(path.stat().st_size)
        _note(place, known)
    return corpus


def note_written(corpus: Corpus) -> Corpus:
    """The corpus, which this process has just written and hashed."""
    hashes = [entry for shards in corpus.splits for entry in shards.hashes()]
    _note(_place(corpus), {path.name: _state(path, sha256) for path, sha256 in hashes})
    return corpus


def _state(path: Path, sha256: str) -> State:
    status = path.stat()
    if tag := places.tag_of(path):
        return [status.st_size, tag, sha256]
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, sha256]


def _place(corpus: Corpus) -> Path | None:
    """The file that says what is known of a corpus; None where the user has no home."""
    name = checksum(places.named(os.path.realpath(corpus.directory)))[:24]
    try:
        return cache_directory() / "verified" / f"{name}.json"
    except RuntimeError:
        return None


def _known(corpus: Corpus) -> dict[str, Any]:
    place = _place(corpus)
    try:
        found = json.loads(place.read_bytes()) if place else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(place: Path | None, known: dict[str, Any]) -> None:
    if place is None:
        return
    with contextlib.suppress(OSError):  # then they are read again
        write_json(place, known)
