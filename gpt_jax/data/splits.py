"""Which text is held out: whole documents picked by hash, or the tail. Must not import jax."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gpt_jax.config import DataConfig
from gpt_jax.data.sources import Document


class Piece(NamedTuple):
    """Text that goes to one split; `ends`: an end-of-text token follows."""

    split: str
    text: str
    ends: bool


def pieces(documents: Iterable[Document], config: DataConfig, n_characters: int) -> Iterator[Piece]:
    """The documents as pieces of "train" and "validation".

    n_characters is the corpus' length; only data.validation = tail needs it.
    """
    if config.validation == "tail":
        return _tail(documents, int(n_characters * (1 - config.validation_fraction)), n_characters)
    return (
        Piece(
            "validation" if is_held_out(document, config.validation_fraction) else "train",
            document.text,
            ends=True,
        )
        for document in documents
    )


def is_held_out(document: Document, fraction: float) -> bool:
    """Whether a document is for validation: decided by its name and content alone."""
    digest = hashlib.sha256(f"{document.name}\0{document.text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _tail(documents: Iterable[Document], cut: int, n_characters: int) -> Iterator[Piece]:
    """All documents as one text, end of text between them, cut at a character (nanoGPT)."""
    begin = 0
    for document in documents:
        end = begin + len(document.text)
        before, after = document.text[: max(0, cut - begin)], document.text[max(0, cut - begin) :]
        if before:
            yield Piece("train", before, ends=not after and end < n_characters)
        if after:
            yield Piece("validation", after, ends=end < n_characters)
        begin = end


def sample_blocks(texts: Iterable[str], n_characters: int, limit: int) -> Iterator[str]:
    """About `limit` of the n_characters of `texts`, in blocks spread evenly over them."""
    block, stride = 1 << 14, max(1, round(n_characters / limit))
    index = 0
    for text in texts:
        for begin in range(0, len(text), block):
            if index % stride == 0:
                yield text[begin : begin + block]
            index += 1
