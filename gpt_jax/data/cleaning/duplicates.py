"""Copies and near copies of documents. Must not import jax.

A document is a near copy where the Jaccard similarity of its sets of five consecutive words with
those of an earlier one is at least a threshold, as MinHash estimates it (Broder 1997; Lee et al.
2022, arXiv:2107.06499).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.storage.checksum import checksum
from gpt_jax.storage.optional import require

SHINGLE = 5
"""Words in a row."""
PERMUTATIONS = 128
"""Hashes of a signature, 512 bytes; the estimate's standard error is at most .044."""
SCHEME = "affine32"
"""How datasketch permutes hashes: of 32 bits."""
DIGEST_BYTES = 16

Signature = NDArray[np.uint32]


def digest(text: str) -> bytes:
    """Digest by which copies are known: case and white space make no difference."""
    return bytes.fromhex(checksum(" ".join(text.lower().split())))[:DIGEST_BYTES]


def signature(text: str) -> Signature:
    """MinHash of a document's sets of words. Raises ValueError without the extra `clean`."""
    made = require("datasketch", "clean").MinHash(PERMUTATIONS, seed=1, scheme=SCHEME)
    made.update_batch(shingle.encode() for shingle in set(shingles(text)))
    return np.asarray(made.hashvalues, np.uint32)


def shingles(text: str) -> Iterator[str]:
    """Each five words in a row, in lower case; of a shorter text all of it."""
    words = text.lower().split()
    for i in range(max(1, len(words) - SHINGLE + 1)):
        yield " ".join(words[i : i + SHINGLE])


class Seen:
    """The documents that were kept."""

    def __init__(self, threshold: float | None):
        """threshold: similarity from which on a document is a near copy; None: copies alone."""
        self._threshold = threshold
        self._digests: set[bytes] = set()
        self._signatures: list[Signature] = []
        self._index: Any = None
        if threshold is not None:
            sketch = require("datasketch", "clean")
            self._sketch = sketch
            self._index = sketch.MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)

    def copies(self, digest: bytes, signature: Signature | None) -> str:
        """Why a document is a copy of one that was kept; empty: it is none."""
        if digest in self._digests:
            return "copy of an earlier document"
        if signature is not None and self._nearest(signature) >= (self._threshold or 0):
            return f"near copy of an earlier document (similarity {self._threshold} or more)"
        return ""

    def add(self, digest: bytes, signature: Signature | None) -> None:
        """Note a document that is kept."""
        self._digests.add(digest)
        if signature is not None:
            self._index.insert(len(self._signatures), self._minhash(signature))
            self._signatures.append(signature)

    def _nearest(self, signature: Signature) -> float:
        """Estimated similarity with the most similar candidate; -1 without candidates."""
        candidates = self._index.query(self._minhash(signature))
        shares = [float(np.mean(self._signatures[i] == signature)) for i in candidates]
        return max(shares, default=-1.0)

    def _minhash(self, signature: Signature) -> Any:
        return self._sketch.MinHash(PERMUTATIONS, seed=1, hashvalues=signature, scheme=SCHEME)
