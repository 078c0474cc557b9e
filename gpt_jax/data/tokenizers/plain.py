"""Tokenizers without a learned vocabulary: bytes, characters, ids. Must not import jax."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers.base import END_OF_TEXT, Ids, Tokenizer


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8, and end of text."""

    vocab_size = 257
    end_of_text = 256

    @property
    def spec(self) -> dict[str, Any]:
        return {"kind": "byte"}

    def cut(self, text: str, place: int) -> int:
        return place

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint32)

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        array = self.check_ids(ids)
        documents = np.split(array, np.flatnonzero(array == self.end_of_text))
        pieces = [documents[0], *(d[1:] for d in documents[1:])]
        return END_OF_TEXT.join(
            piece.astype(np.uint8).tobytes().decode(errors="replace") for piece in pieces
        )

    def token_bytes(self, token: int) -> bytes:
        self.check_ids([token])
        return END_OF_TEXT.encode() if token == self.end_of_text else bytes([token])


class CharTokenizer(Tokenizer):
    """A token for each character of a given alphabet, numbered in their order; no end of text."""

    end_of_text = None

    def __init__(self, characters: str):
        self.characters = characters
        self.vocab_size = len(characters)
        self._codes = _code_points(characters)
        self._ids = np.full(int(self._codes.max(initial=0)) + 1, len(characters), np.uint32)
        self._ids[self._codes] = np.arange(len(characters), dtype=np.uint32)

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "CharTokenizer":
        """The sorted alphabet of some texts (nanoGPT's prepare.py)."""
        return cls("".join(sorted(set().union(*texts))))

    @property
    def spec(self) -> dict[str, Any]:
        return {"kind": "char", "characters": self.characters}

    def cut(self, text: str, place: int) -> int:
        return place

    def encode(self, text: str) -> Ids:
        """Raises ValueError naming the first character outside the alphabet, and its position."""
        codes = _code_points(text)
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        unknown = np.flatnonzero((codes >= len(self._ids)) | (ids == self.vocab_size))
        if unknown.size:
            position = int(unknown[0])
            raise ValueError(
                f"character {text[position]!r} at position {position:,} is not among the "
                f"{self.vocab_size} characters of this tokenizer; data.tokenizer = byte knows "
                "every text"
            )
        return ids

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        codes = self._codes[self.check_ids(ids)]
        return codes.astype("<u4").tobytes().decode("utf-32-le")


class IdsTokenizer(Tokenizer):
    """Token ids written as numbers with blanks between them: for models of symbols."""

    def __init__(self, vocab_size: int, end_of_text: int | None = None):
        self.vocab_size, self.end_of_text = vocab_size, end_of_text

    @property
    def spec(self) -> dict[str, Any]:
        return {"kind": "ids", "vocab_size": self.vocab_size, "end_of_text": self.end_of_text}

    @property
    def special(self) -> Mapping[str, int]:
        return {}

    def encode(self, text: str) -> Ids:
        """Raises ValueError naming the first word that is no id."""
        words = text.split()
        for position, word in enumerate(words):
            digits = word.isascii() and word.isdecimal() and len(word) < 10
            if not digits or int(word) >= self.vocab_size:
                raise ValueError(
                    f"{word[:40]!r}, word {position + 1:,} of a text, is no token id; this run "
                    f"reads numbers from 0 to {self.vocab_size - 1} with blanks between them"
                )
        return np.array([int(word) for word in words], np.uint32)

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        return " ".join(map(str, self.check_ids(ids).tolist()))


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)
