"""Finished items of an evaluation, a JSON line each: a kill loses nothing that was finished.

A file belongs to one model: config fingerprint, checkpoint and type of the operands are in its
name. A line is found again by task, shots and a digest of the item's prompt and choices, so a
changed task, seed or tokenizer computes anew. Must not import jax.
"""

import json
from pathlib import Path
from typing import Any

from gpt_jax.runs.tracking import read_records
from gpt_jax.storage.atomic import write_atomically
from gpt_jax.storage.checksum import checksum


class Cache:
    """Cached results of one model, in a file that is appended to."""

    def __init__(self, path: Path, header: dict[str, Any]):
        """header: what the file belongs to, written into each line."""
        self.path, self._header = path, header
        found = read_records(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            # A line cut short by a kill: what is appended must not be glued to it.
            write_atomically(path, "".join(json.dumps(record) + "\n" for record in found))
        self._known = {_key(r["task"], r["shots"], r["digest"]): r["value"] for r in found}
        self._file = path.open("a")

    def get(self, task: str, shots: int, digest: str) -> Any | None:
        """The value stored for an item; None if there is none."""
        return self._known.get(_key(task, shots, digest))

    def put(self, task: str, item: int, shots: int, digest: str, value: Any) -> None:
        """Store an item's value, a JSON value, at once."""
        self._known[_key(task, shots, digest)] = value
        record = {"task": task, "item": item, "shots": shots, "digest": digest, "value": value}
        self._file.write(json.dumps(self._header | record) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def digest_of(value: Any) -> str:
    """16 hex digits over the repr of plain values."""
    return checksum(repr(value))[:16]


def _key(task: str, shots: int, digest: str) -> str:
    return f"{task} {shots} {digest}"
