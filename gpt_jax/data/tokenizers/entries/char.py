"""Characters of the corpus. Must not import jax."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers.base import Ids, Tokenizer
from gpt_jax.data.tokenizers.entry import TokenizerEntry


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


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)


ENTRY = TokenizerEntry(
    name="char",
    summary="the characters of the corpus",
    make=lambda making: CharTokenizer.from_texts(making.learned_from()),
    restore=lambda spec, where: CharTokenizer(spec["characters"]),
)
