"""Bytes of UTF-8. Must not import jax."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers.base import END_OF_TEXT, Ids, Tokenizer
from gpt_jax.data.tokenizers.entry import TokenizerEntry


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


ENTRY = TokenizerEntry(
    name="byte",
    summary="the 256 bytes of UTF-8",
    make=lambda making: ByteTokenizer(),
    restore=lambda spec, where: ByteTokenizer(),
)
