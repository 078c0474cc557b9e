"""Text in the portions that a build works on: parts of a corpus, chunks for a thread.

A text that has been passed on is not kept while the next is read: large files are held once.
Must not import jax.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gpt_jax.data.documents import Document
from gpt_jax.data.splits import Piece
from gpt_jax.data.tokenizers import Tokenizer

CHUNK_BYTES = 1 << 20
"""Text in one unit of parallel work; of a longer document, a part after which a token ends."""


class Part(NamedTuple):
    """Characters [begin, end) of a piece."""

    piece: Piece
    begin: int
    end: int

    @property
    def last(self) -> bool:
        return self.end == len(self.piece.text)


def not_empty(documents: Iterator[Document]) -> Iterator[Document]:
    return filter(lambda document: document.text, documents)


def group(items: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Consecutive pieces, `size` characters or a little more at a time."""
    group: list[Piece] = []
    held = 0
    for item in items:
        group.append(item)
        held += len(item.text)
        del item
        if held >= size:
            yield group
            group, held = [], 0
    if group:
        yield group


def chunks(pieces: Iterable[Piece], tokenizer: Tokenizer) -> Iterator[list[Part]]:
    """Consecutive parts of pieces, CHUNK_BYTES characters or a little more at a time."""
    chunk: list[Part] = []
    held = 0
    for piece in pieces:
        begin = 0
        while begin < len(piece.text):
            end = len(piece.text)
            if end - begin > CHUNK_BYTES - held:
                end = tokenizer.cut(piece.text, begin + CHUNK_BYTES - held)
            chunk.append(Part(piece, begin, end))
            held += end - begin
            begin = end
            if held >= CHUNK_BYTES:
                yield chunk
                chunk, held = [], 0
    if chunk:
        yield chunk
