"""Token shards on disk: raw little-endian .bin files, read through memory maps, and a manifest.

A corpus directory holds, for each split and part,
  {split}-{part}.bin            tokens, uint16 or uint32
  {split}-{part}.documents.bin  uint64 start of each document, in tokens from the shard's start
and tokenizer_spec.json and manifest.json; the manifest is written last and makes it complete.
Where the tokenizer has an end-of-text token, one stands between any two documents. The manifest
is sealed: it holds a digest of the rest of itself. Must not import jax. Writing lives in
`gpt_jax.data.build`.
"""

import bisect
import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer
from gpt_jax.storage.checksum import file_checksum, json_checksum
from gpt_jax.storage.places import complete, on_disk

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SEAL = "seal"
DOCUMENT_DTYPE = np.dtype("<u8")


@dataclasses.dataclass(frozen=True)
class ShardRecord:
    """The manifest's entry of one shard; n_bytes counts the UTF-8 text it was made from."""

    name: str
    n_documents: int
    n_tokens: int
    n_bytes: int
    sha256: str
    documents_sha256: str

    def files(self) -> tuple[str, str]:
        """File names of the tokens and of the document starts."""
        return f"{self.name}.bin", f"{self.name}.documents.bin"


class TokenShards:
    """One split of a corpus: a sequence of n_tokens tokens in one or more files."""

    def __init__(
        self,
        directory: Path,
        split: str,
        records: tuple[ShardRecord, ...],
        dtype: np.dtype[Any],
        end_of_text: int | None,
        corpus: str = "",
    ):
        """Opens the shards. Raises ValueError naming a shard that is missing or of wrong size.

        corpus: its name in messages; empty = the directory's.
        """
        self.directory, self.split, self.records = directory, split, records
        self.dtype, self.end_of_text = dtype, end_of_text
        self.name = f"{corpus or directory.name}/{split}"
        self.n_tokens = sum(r.n_tokens for r in records)
        self.n_documents = sum(r.n_documents for r in records)
        self.n_bytes = sum(r.n_bytes for r in records)
        for record in records:
            tokens, documents = record.files()
            _check_size(directory / tokens, record.n_tokens * dtype.itemsize)
            _check_size(directory / documents, record.n_documents * DOCUMENT_DTYPE.itemsize)
        self._starts = np.cumsum([0, *(r.n_tokens for r in records)]).tolist()
        self._maps = [
            # As plain arrays: slicing the subclass np.memmap costs microseconds more.
            np.asarray(np.memmap(directory / r.files()[0], dtype, "r"))
            if r.n_tokens
            else np.zeros(0, dtype)
            for r in records
        ]

    def read(self, start: int, length: int) -> NDArray[Any]:
        """Tokens [start, start + length) in the stored type, across shard borders.

        Raises ValueError when the range leaves the split.
        """
        if start < 0 or length < 0 or start + length > self.n_tokens:
            raise ValueError(
                f"tokens [{start:,}, {start + length:,}) are outside {self.name}, "
                f"which holds {self.n_tokens:,}"
            )
        pieces: list[NDArray[Any]] = []
        shard = bisect.bisect_right(self._starts, start) - 1
        while length:
            begin = start - self._starts[shard]
            pieces.append(self._maps[shard][begin : begin + length])
            start, length, shard = start + len(pieces[-1]), length - len(pieces[-1]), shard + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, self.dtype), *pieces])

    @functools.cached_property
    def document_starts(self) -> NDArray[np.int64]:
        """(n_documents,) first token of each document, ascending. 8 bytes a document in memory."""
        starts = [
            np.fromfile(self.directory / record.files()[1], DOCUMENT_DTYPE).astype(np.int64) + first
            for record, first in zip(self.records, self._starts, strict=False)
        ]
        return np.concatenate(starts) if starts else np.zeros(0, np.int64)

    def segments(self, start: int, length: int) -> NDArray[np.int32]:
        """Which document each token of [start, start + length) belongs to, counted from 1.

        An end-of-text token opens the document after it: as a target it ends the one before,
        as an input it is what a new document is predicted from.
        """
        opens = self.document_starts - (self.end_of_text is not None)
        first = np.searchsorted(opens, start, "right")
        inside = opens[first : np.searchsorted(opens, start + length)]
        positions = np.arange(start, start + length)
        return (np.searchsorted(inside, positions, "right") + 1).astype(np.int32)

    def hashes(self) -> Iterator[tuple[Path, str]]:
        """Each file, and the sha256 that the manifest gives it."""
        for record in self.records:
            for file, sha256 in zip(
                record.files(), (record.sha256, record.documents_sha256), strict=True
            ):
                yield self.directory / file, sha256

    def verify(self) -> None:
        """Reads everything. Raises ValueError naming the first file whose hash does not match."""
        for path, sha256 in self.hashes():
            check_hash(path, sha256)


class Corpus:
    """A built corpus directory: manifest, tokenizer and splits."""

    def __init__(self, directory: str | Path, *, verify: bool = False, name: str = ""):
        """Opens a directory made by `gpt_jax.data.build.build`; verify=True checks every hash.

        name: among other corpora; empty = the directory's. Raises ValueError when it is no
        corpus, is of another format, was edited, or a shard does not match.
        """
        self.directory = on_disk(directory)
        self.name = name or distinct_names([self.directory])[0]
        self.manifest = _read_manifest(self.directory)
        complete(self.directory)
        self._splits = {name: self._open(name) for name in self.manifest["splits"]}
        if verify:
            for shards in self._splits.values():
                shards.verify()

    def _open(self, split: str) -> TokenShards:
        records = tuple(ShardRecord(**r) for r in self.manifest["splits"][split]["shards"])
        end_of_text = self.manifest["tokenizer"]["end_of_text"]
        dtype = np.dtype(self.manifest["dtype"])
        return TokenShards(self.directory, split, records, dtype, end_of_text, self.name)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the shards, rebuilt from the directory alone."""
        tokenizer = load_tokenizer(self.directory)
        expected = self.manifest["tokenizer"]["fingerprint"]
        if tokenizer.fingerprint != expected:
            raise ValueError(
                f"the tokenizer in {self.directory} has changed: its fingerprint is "
                f"{tokenizer.fingerprint}, the manifest says {expected}"
            )
        return tokenizer

    @property
    def splits(self) -> Sequence[TokenShards]:
        """All of them, empty ones too."""
        return tuple(self._splits.values())

    @property
    def fingerprint(self) -> str:
        """12 hex digits over all tokens, their split, and the tokenizer."""
        splits = {
            name: [[r.n_tokens, r.sha256, r.documents_sha256] for r in shards.records]
            for name, shards in self._splits.items()
        }
        content = [splits, self.manifest["dtype"], self.manifest["tokenizer"]["fingerprint"]]
        return json_checksum(content)[:12]

    def split(self, name: str) -> TokenShards:
        """The split `train` or `validation`. Raises ValueError when it is not there, or empty."""
        if name not in self._splits or not self._splits[name].n_tokens:
            raise ValueError(
                f"{self.directory} has no {name} tokens (data.validation_fraction was "
                f"{self.manifest['config']['validation_fraction']})"
            )
        return self._splits[name]


def summary(records: tuple[ShardRecord, ...]) -> dict[str, Any]:
    """The manifest's entry of one split: totals, and its shards."""
    return {
        "n_documents": sum(r.n_documents for r in records),
        "n_tokens": sum(r.n_tokens for r in records),
        "n_bytes": sum(r.n_bytes for r in records),
        "shards": [dataclasses.asdict(r) for r in records],
    }


def _read_manifest(directory: Path) -> Mapping[str, Any]:
    path = directory / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{directory} holds no finished corpus (no {MANIFEST}); make one with "
            "`gpt-jax data build`"
        )
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not valid JSON; build the corpus again") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}; "
            "build the corpus again"
        )
    if manifest.get(SEAL, seal := manifest_seal(manifest)) != seal:
        raise ValueError(
            f"{path} was changed after the corpus was built: its seal does not fit; put the "
            "original back, or delete the directory and build it again"
        )
    return manifest


def manifest_seal(manifest: Mapping[str, Any]) -> str:
    """The digest of all that a manifest says but its seal, which earlier versions did not write."""
    content = {key: value for key, value in manifest.items() if key != SEAL}
    return json_checksum(content)


def distinct_names(directories: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many as tell different directories apart: en/shards."""
    paths = [Path(os.path.abspath(directory)).parts for directory in directories]

    def name(path: tuple[str, ...]) -> str:
        others = {other for other in paths if other != path}
        n = next((n for n in range(1, len(path)) if path[-n:] not in {o[-n:] for o in others}), 1)
        return "/".join(path[-n:])

    return [name(path) for path in paths]


def check_hash(path: Path, sha256: str) -> None:
    """Raises ValueError for a shard's file that is not what the manifest says."""
    try:
        actual = file_checksum(path)
    except OSError as error:
        raise ValueError(f"cannot read shard {path}: {error.strerror}") from None
    if actual != sha256:
        raise ValueError(
            f"shard {path} has changed: its sha256 is {actual[:12]}…, the manifest says "
            f"{sha256[:12]}…; delete the directory and build it again"
        )


def _check_size(path: Path, expected: int) -> None:
    actual = path.stat().st_size if path.is_file() else None
    if actual != expected:
        found = "is missing" if actual is None else f"has {actual:,} bytes"
        raise ValueError(
            f"shard {path} {found}; the manifest says {expected:,} bytes; "
            "delete the directory and build it again"
        )
