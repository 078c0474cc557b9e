"""The one checksum: SHA-256, of texts, bytes, plain values and files. Must not import jax."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def checksum(content: str | bytes | Iterable[bytes | memoryview]) -> str:
    """64 hex digits over a text (as UTF-8), bytes, or buffers one after the other."""
    if isinstance(content, str):
        content = content.encode()
    digest = hashlib.sha256()
    for part in [content] if isinstance(content, bytes) else content:
        digest.update(part)
    return digest.hexdigest()


def json_checksum(value: Any) -> str:
    """64 hex digits over plain values, however the keys of their objects are ordered."""
    return checksum(json.dumps(value, sort_keys=True))


def file_checksum(path: Path) -> str:
    """64 hex digits over a file's bytes, which are read a part at a time."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seed_of(text: str) -> int:
    """A 64-bit seed that follows from a text: the first 8 bytes of its checksum, lowest first."""
    return int.from_bytes(bytes.fromhex(checksum(text))[:8], "little")
