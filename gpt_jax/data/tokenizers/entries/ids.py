"""Numbers instead of words. Must not import jax."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers.base import Ids, Tokenizer
from gpt_jax.data.tokenizers.entry import TokenizerEntry


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


ENTRY = TokenizerEntry(
    name="ids",
    summary="texts that are ids already, of so many",
    argument=r"0*[1-9]\d{0,8}",
    make=lambda making: IdsTokenizer(int(making.argument)),
    restore=lambda spec, where: IdsTokenizer(spec["vocab_size"], spec["end_of_text"]),
)
