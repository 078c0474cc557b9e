"""What a tokenizer is, and how it is kept beside the tokens it made. Must not import jax."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPEC_FILE = "tokenizer_spec.json"
END_OF_TEXT = "<|endoftext|>"
"""How an end-of-text token is shown by decode; in text that is encoded it is ordinary text."""

Ids = NDArray[np.uint32]


class Tokenizer(ABC):
    """Text to token ids below vocab_size, and back. Safe to use from several threads."""

    vocab_size: int
    end_of_text: int | None
    """The id that separates documents, or None where the vocabulary has none."""

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Plain values from which `from_spec` rebuilds this tokenizer, files included."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """(n,) ids of ordinary text: nothing is added, no special token is recognised."""

    @abstractmethod
    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of ids; bytes that are no valid UTF-8 become U+FFFD.

        Raises ValueError for an id outside the vocabulary.
        """

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the spec."""
        return hashlib.sha256(_dump(self.spec).encode()).hexdigest()[:12]

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer_spec.json, from which `load_tokenizer(directory)` rebuilds it."""
        path = Path(directory) / SPEC_FILE
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(_dump(self.spec))
        os.replace(temporary, path)

    def check_ids(self, ids: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """The ids as an array. Raises ValueError naming one that is outside the vocabulary."""
        array = np.asarray(ids, np.int64).reshape(-1)
        outside = array[(array < 0) | (array >= self.vocab_size)]
        if outside.size:
            raise ValueError(
                f"token id {outside[0]} is outside the vocabulary of {self.vocab_size:,}"
            )
        return array


def _dump(spec: dict[str, Any]) -> str:
    return json.dumps(spec, ensure_ascii=False, sort_keys=True)
