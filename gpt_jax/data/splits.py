"""Which text is held out: whole documents by hash, files by name, or the tail. No jax here."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document
from gpt_jax.storage.checksum import checksum

LEFT_OUT = "left out"
"""The split of a document to train on that is a copy of one in a file held out."""
RECENT = 1 << 18
"""Digests kept in a Python set, 60 bytes each, before they join the others at 8 bytes."""
ENCODED_CHARACTERS = 1 << 20


class Piece(NamedTuple):
    """Text that goes to one split; `ends`: an end-of-text token follows."""

    split: str
    text: str
    ends: bool


def pieces(
    documents: Iterable[Document],
    config: DataConfig,
    n_characters: int,
    held_out: Iterable[Document] | None = None,
) -> Iterator[Piece]:
    """The documents as pieces of "train" and "validation"; copies are all on one side.

    n_characters is the corpus' length; only data.validation = tail needs it. held_out: documents
    of files named validation, which come first.
    """
    if held_out is not None:
        return _named(documents, held_out)
    if config.validation == "tail":
        return _tail(documents, int(n_characters * (1 - config.validation_fraction)), n_characters)
    if not config.validation_fraction:
        return (Piece("train", document.text, ends=True) for document in documents)
    return _hashed(documents, config.validation_fraction)


def is_held_out(document: Document, fraction: float) -> bool:
    """Whether a document is for validation: decided by its name and content alone."""
    content = itertools.chain([f"{document.name}\0".encode()], utf8(document.text))
    return int(checksum(content)[:16], 16) < fraction * 2**64


def utf8(text: str) -> Iterator[bytes]:
    """The text's bytes, a part at a time."""
    for begin in range(0, len(text), ENCODED_CHARACTERS):
        yield text[begin : begin + ENCODED_CHARACTERS].encode()


def _hashed(documents: Iterable[Document], fraction: float) -> Iterator[Piece]:
    """Documents by their hash; a copy of one goes where that went.

    (Not by a hash of the text alone: that would hold out other documents than earlier versions
    did, in corpora without copies too.)
    """
    seen = {"train": Digests(), "validation": Digests()}
    for document in documents:
        digest = _digest(document.text)
        split = next((split for split in seen if digest in seen[split]), "")
        if not split:
            split = "validation" if is_held_out(document, fraction) else "train"
            seen[split].add(digest)
        piece = Piece(split, document.text, ends=True)
        del document  # a long text is not kept while the next is read
        yield piece
        del piece


def _named(documents: Iterable[Document], held_out: Iterable[Document]) -> Iterator[Piece]:
    """Documents held out by the names of their files; a copy of one is not trained on."""
    seen = Digests()
    for document in held_out:
        seen.add(_digest(document.text))
        yield Piece("validation", document.text, ends=True)
    for document in documents:
        copy = _digest(document.text) in seen
        piece = Piece(LEFT_OUT if copy else "train", document.text, ends=True)
        del document
        yield piece
        del piece


def _digest(text: str) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for data in utf8(text):
        digest.update(data)
    return int.from_bytes(digest.digest(), "big")


class Digests:
    """A set of 64-bit numbers, in 8 bytes each once they are many."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted = np.zeros(0, np.uint64)

    def add(self, digest: int) -> None:
        self._recent.add(digest)
        if len(self._recent) >= RECENT:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.union1d(self._sorted, recent)
            self._recent.clear()

    def __contains__(self, digest: int) -> bool:
        if digest in self._recent:
            return True
        place = np.searchsorted(self._sorted, np.uint64(digest))
        return bool(place < len(self._sorted) and self._sorted[place] == digest)


def _tail(documents: Iterable[Document], cut: int, n_characters: int) -> Iterator[Piece]:
    """All documents as one text, end of text between them, cut at a character (nanoGPT)."""
    begin = 0
    for document in documents:
        end = begin + len(document.text)
        before, after = document.text[: max(0, cut - begin)], document.text[max(0, cut - begin) :]
        del document
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
