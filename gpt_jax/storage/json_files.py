"""JSON files that this project wrote and that time, a disk or a hand may have changed.

Must not import jax.
"""

import json
from pathlib import Path
from typing import Any


class Damaged(ValueError):
    """A file that is not as it was written; the message names it and says what is wrong."""


def read_object(path: Path, *required: str) -> dict[str, Any]:
    """The object in a JSON file. Raises Damaged unless it is one with the required keys."""
    return parse_object(path.read_bytes(), str(path), *required)


def parse_object(text: bytes, where: str, *required: str) -> dict[str, Any]:
    """The object in a JSON text. Raises Damaged, naming `where` it stands."""
    if not text.strip():
        raise Damaged(f"{where} is damaged: it is empty")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise Damaged(f"{where} is damaged: it cannot be read as JSON ({reason})") from None
    if not isinstance(value, dict):
        raise Damaged(f"{where} is damaged: it holds no JSON object")
    missing = [key for key in required if key not in value]
    if missing:
        raise Damaged(f"{where} is damaged, or another program's: it has no {missing[0]!r}")
    return value
