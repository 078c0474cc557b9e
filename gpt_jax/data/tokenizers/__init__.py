"""Tokenizers back from the directory of a corpus or run (`making`: by name).

A kind of tokenizer, and the library behind it, is imported where it is asked for. Must not
import jax.
"""

import base64
import json
from pathlib import Path
from typing import Any

from gpt_jax.data.tokenizers.base import (
    END_OF_TEXT,
    SPEC_FILE,
    Conventions,
    Tokenizer,
    errors_named,
)
from gpt_jax.data.tokenizers.entry import TOKENIZERS
from gpt_jax.storage.checksum import checksum
from gpt_jax.storage.places import on_disk

__all__ = [
    "END_OF_TEXT",
    "Conventions",
    "Tokenizer",
    "from_spec",
    "load_tokenizer",
    "tokenizer_identity",
]

ALLOWED = (
    "byte | char | gpt2 | gpt1 | bpe:SIZE | ids:SIZE | a path to a tokenizer.json or .model file, "
    f"or to the {SPEC_FILE} of a run or corpus"
)


def tokenizer_identity(name: str) -> str:
    """The name, and for a file its hash: what a corpus must be rebuilt for."""
    if not name.endswith((".json", ".model")):
        origin = TOKENIZERS.origin(name.partition(":")[0])
        return f"{name} {origin}" if origin else name
    content = read_file(name)
    if name.endswith(".json") and Path(name).name != SPEC_FILE:
        from gpt_jax.data.tokenizers.tokenizer_json import identity

        used = identity(Path(name), content)
        content = content if used is None else used.encode()
    return f"{Path(name).name} {checksum(content)}"


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer saved in a corpus or run directory.

    Raises ValueError when there is none.
    """
    path = Path(directory) / SPEC_FILE
    if not path.is_file():
        raise ValueError(f"no tokenizer in {directory} ({SPEC_FILE} is missing)")
    return from_file(str(path), path.read_bytes())


def from_spec(spec: dict[str, Any], where: str = "a saved tokenizer") -> Tokenizer:
    """The tokenizer whose `saved` this is; `where` names it in messages.

    Raises ValueError for one that is damaged, or of an unknown kind.
    """
    with errors_named(where):
        made = _from_spec(spec, where)
        if "conventions" not in spec:
            return made
        return made.with_conventions(Conventions.from_dict(spec["conventions"]))


def _from_spec(spec: dict[str, Any], where: str) -> Tokenizer:
    kind = spec.get("kind")
    entry = TOKENIZERS.find(kind) if isinstance(kind, str) and kind in TOKENIZERS else None
    if entry is not None and entry.restore is not None:
        return entry.restore(spec, where)
    match kind:
        case "json":
            from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer

            return JsonTokenizer(spec["json"], where, spec.get("end_of_text"))
        case "sentencepiece":
            from gpt_jax.data.tokenizers.subword import SentencePieceTokenizer

            return SentencePieceTokenizer(base64.b64decode(spec["model"]), where)
        case _:
            raise ValueError(f"it is of unknown kind {kind!r}; was it made by a later version?")


def from_file(name: str, content: bytes) -> Tokenizer:
    """`from_spec` of the text of a file, which `name` names in messages."""
    with errors_named(name):
        spec = json.loads(content)
        if not isinstance(spec, dict):
            raise ValueError("it holds no JSON object")
    return from_spec(spec, name)


def read_file(path: str) -> bytes:
    """The content of a file that `data.tokenizer` names. Raises ValueError where there is none."""
    file = on_disk(path)
    if not file.is_file():
        raise ValueError(f"data.tokenizer = {path}; there is no such file; allowed: {ALLOWED}")
    return file.read_bytes()
