"""Makes token shards out of text, in parallel and resumably, and finds those made before.

The text is taken in parts of about PART_BYTES. A part's shards depend on its text alone and are
put in place by an atomic rename, its record last: a killed build continues after the last
recorded part and ends in the same bytes, and two builders cannot spoil each other's work (a
lock merely keeps the second from repeating it).

Tokenizers release the interpreter's lock, so the workers are threads: nothing is pickled, no
process has to be forked after jax has started its own threads, and a kill takes all of them.
Must not import jax.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.config import DataConfig
from gpt_jax.data.progress import report_bytes
from gpt_jax.data.shards import (
    DOCUMENT_DTYPE,
    FORMAT_VERSION,
    MANIFEST,
    Corpus,
    ShardRecord,
    summary,
)
from gpt_jax.data.sources import Document, Source, open_source
from gpt_jax.data.splits import Piece, pieces, sample_blocks
from gpt_jax.data.tokenizers import (
    Tokenizer,
    bpe_size,
    load_tokenizer,
    make_tokenizer,
    tokenizer_identity,
)
from gpt_jax.data.tokenizers.base import SPEC_FILE
from gpt_jax.runtime import cache_directory

PART_BYTES = 128 << 20
"""Text in a shard: what a killed build loses at most, and what it holds in memory."""
CHUNK_BYTES = 1 << 20
"""Text in one unit of parallel work."""
BPE_CHARACTERS_PER_TOKEN = 1_000
"""bpe:SIZE learns from this many characters for each token, evenly taken from the corpus.

On the standard library (12 MB, SIZE 4096) all of the text would give 0.6% fewer tokens and take
three times as long.
"""
CLAIM = "build.json"
MACHINE_LOCAL = ("cache", "tokenizer_path")

Encoded = list[tuple[NDArray[Any], int]]


def default_cache() -> Path:
    """$XDG_CACHE_HOME/gpt_jax/data, or ~/.cache/gpt_jax/data."""
    return cache_directory() / "data"


def prepare(config: DataConfig, *, workers: int | None = None, progress: bool = True) -> Corpus:
    """The corpus of a config: opened where it was built before, else built in data.cache.

    Its directory is named by a hash of the settings and of the source's state: when the text
    changes, another is built. With data.source = shards, data.path is opened, and the
    tokenizer is the one it was made with.

    Raises ValueError for a mixture: it is several corpora (see `prepare_mixture`).
    """
    if config.source == "shards":
        return Corpus(config.path)
    source = open_source(config)
    digest = hashlib.sha256(json.dumps(_identity(config, source)).encode()).hexdigest()
    names = [config.source, Path(config.path).stem, Path(config.tokenizer).stem, digest[:12]]
    label = "-".join(re.sub(r"[^\w.]+", "_", name) for name in names if name)
    directory = Path(config.cache) if config.cache else default_cache()
    return build(config, directory.expanduser() / label, workers=workers, progress=progress)


def prepare_mixture(
    config: DataConfig, *, workers: int | None = None, progress: bool = True
) -> tuple[tuple[Corpus, float], ...]:
    """The corpora of any config with their weights; one, of weight 1, where it is no mixture.

    Raises ValueError when the corpora of a mixture were made by different tokenizers.
    """
    if config.source != "mixture":
        return ((prepare(config, workers=workers, progress=progress), 1.0),)
    corpora = [(Corpus(component.path), component.weight) for component in config.mixture]
    first = corpora[0][0]
    for corpus, _ in corpora[1:]:
        if corpus.tokenizer.fingerprint != first.tokenizer.fingerprint:
            raise ValueError(
                f"data.mixture: {corpus.directory} was made by another tokenizer than "
                f"{first.directory} ({corpus.manifest['tokenizer']['name']}, "
                f"{first.manifest['tokenizer']['name']}); build both with the same one"
            )
    return tuple(corpora)


def build(
    config: DataConfig,
    directory: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    part_bytes: int = PART_BYTES,
) -> Corpus:
    """Tokenizes a source into `directory`, or opens what is already finished there.

    Args:
      workers: threads that tokenize; none = one a core. Does not change the result.
      progress: report to stderr.
      part_bytes: text in a shard, about; a smaller one makes an interrupted build lose less.

    Raises ValueError when `directory` holds something else or cannot be written, when the
    source cannot be read, or when a split stays empty that should not.
    """
    source, directory = open_source(config), Path(directory)
    identity = _identity(config, source)
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        if not (directory / MANIFEST).is_file():
            _claim(directory, identity)
            builder = _Builder(config, source, directory, workers, progress, part_bytes)
            _write_json(directory / MANIFEST, builder.manifest() | {"identity": identity})
        corpus = Corpus(directory)
        if corpus.manifest["identity"] != identity:
            raise ValueError(
                f"{directory} holds a corpus of other text or settings "
                f"({corpus.manifest['source']['description']}); delete it or choose another place"
            )
        _remove(directory, CLAIM, "part-*.json")
    return corpus


class _Builder:
    """One build in one directory."""

    def __init__(
        self,
        config: DataConfig,
        source: Source,
        directory: Path,
        workers: int | None,
        progress: bool,
        part_bytes: int,
    ):
        self.config, self.source, self.directory = config, source, directory
        self.workers, self.progress, self.part_bytes = workers, progress, part_bytes
        self.n_characters = self.n_bytes = 0
        if config.validation == "tail" or bpe_size(config.tokenizer):
            for document in self._documents():
                self.n_characters += len(document.text)
                self.n_bytes += len(document.text.encode())
        self.tokenizer = self._make_tokenizer()
        self.dtype = np.dtype("<u2" if self.tokenizer.vocab_size <= 1 << 16 else "<u4")

    def _documents(self) -> Iterator[Document]:
        return (document for document in self.source.read() if document.text)

    def _pieces(self) -> Iterator[Piece]:
        return pieces(self._documents(), self.config, self.n_characters)

    def _make_tokenizer(self) -> Tokenizer:
        """As configured; one that an interrupted build has learned is kept."""
        if (self.directory / SPEC_FILE).is_file():
            return load_tokenizer(self.directory)

        def texts() -> Iterator[str]:
            size = bpe_size(self.config.tokenizer)
            if size is None:
                return (piece.text for piece in self._pieces())
            training = (piece.text for piece in self._pieces() if piece.split == "train")
            return sample_blocks(training, self.n_characters, size * BPE_CHARACTERS_PER_TOKEN)

        tokenizer = make_tokenizer(self.config.tokenizer, self.config.tokenizer_path, texts)
        with _writing(self.directory):
            tokenizer.save(self.directory)
        return tokenizer

    def manifest(self) -> dict[str, Any]:
        """Makes whatever part is not there yet, and sums up. Nothing in it depends on the run."""
        found: dict[str, list[ShardRecord]] = {"train": [], "validation": []}
        with (
            ThreadPoolExecutor(self.workers or os.cpu_count()) as pool,
            report_bytes("tokenizing", self.n_bytes or None, self.progress) as advance,
        ):
            for index, part in enumerate(_group(self._pieces(), self.part_bytes)):
                records = self._recorded(index)
                if records is None:
                    records = self._write_part(index, part, pool, advance)
                else:
                    advance(sum(record.n_bytes for record in records.values()))
                for split, record in records.items():
                    found[split].append(record)
        self._check_splits(found)
        tokenizer = self.tokenizer
        config = dataclasses.asdict(self.config)
        return {
            "format_version": FORMAT_VERSION,
            "source": {"kind": self.config.source, "description": self.source.description},
            "config": {k: v for k, v in config.items() if k not in MACHINE_LOCAL},
            "tokenizer": {
                "name": self.config.tokenizer,
                "vocab_size": tokenizer.vocab_size,
                "end_of_text": tokenizer.end_of_text,
                "fingerprint": tokenizer.fingerprint,
            },
            "dtype": self.dtype.str,
            "splits": {split: summary(tuple(records)) for split, records in found.items()},
        }

    def _recorded(self, index: int) -> dict[str, ShardRecord] | None:
        """What an interrupted build has left of a part, if it is whole."""
        path = self.directory / f"part-{index:05d}.json"
        if not path.is_file():
            return None
        records = {k: ShardRecord(**v) for k, v in json.loads(path.read_text()).items()}
        for record in records.values():
            tokens = self.directory / record.files()[0]
            if not tokens.is_file() or tokens.stat().st_size != (
                record.n_tokens * self.dtype.itemsize
            ):
                return None
        return records

    def _write_part(
        self,
        index: int,
        part: Sequence[Piece],
        pool: ThreadPoolExecutor,
        advance: Callable[[int], None],
    ) -> dict[str, ShardRecord]:
        done: dict[str, Encoded] = {}
        chunks = list(_group(part, CHUNK_BYTES))
        for chunk, encoded in zip(chunks, pool.map(self._encode, chunks), strict=True):
            for piece, result in zip(chunk, encoded, strict=True):
                done.setdefault(piece.split, []).append(result)
            advance(sum(n_bytes for _, n_bytes in encoded))
        records = {
            split: self._write_shard(f"{split}-{index:05d}", encoded)
            for split, encoded in sorted(done.items())
        }
        content = {split: dataclasses.asdict(record) for split, record in records.items()}
        _write_json(self.directory / f"part-{index:05d}.json", content)
        return records

    def _encode(self, chunk: Sequence[Piece]) -> Encoded:
        """(tokens, bytes of text) of each piece, the end of text included."""
        encoded: Encoded = []
        for piece in chunk:
            ids = self.tokenizer.encode(piece.text).astype(self.dtype)
            if piece.ends and self.tokenizer.end_of_text is not None:
                ids = np.append(ids, self.dtype.type(self.tokenizer.end_of_text))
            encoded.append((ids, len(piece.text.encode())))
        return encoded

    def _write_shard(self, name: str, encoded: Encoded) -> ShardRecord:
        tokens = np.concatenate([ids for ids, _ in encoded]).astype(self.dtype).tobytes()
        lengths = [len(ids) for ids, _ in encoded]
        starts = np.cumsum([0, *lengths[:-1]]).astype(DOCUMENT_DTYPE).tobytes()
        record = ShardRecord(
            name=name,
            n_documents=len(encoded),
            n_tokens=sum(lengths),
            n_bytes=sum(n_bytes for _, n_bytes in encoded),
            sha256=hashlib.sha256(tokens).hexdigest(),
            documents_sha256=hashlib.sha256(starts).hexdigest(),
        )
        for file, content in zip(record.files(), (tokens, starts), strict=True):
            _write(self.directory / file, content)
        return record

    def _check_splits(self, found: dict[str, list[ShardRecord]]) -> None:
        wanted = ["train", "validation"] if self.config.validation_fraction else ["train"]
        n_documents = sum(r.n_documents for records in found.values() for r in records)
        for split in wanted:
            if not sum(record.n_tokens for record in found[split]):
                raise ValueError(
                    f"no text fell into the {split} split: {n_documents:,} documents, "
                    f"data.validation_fraction = {self.config.validation_fraction}; "
                    "data.validation = tail holds out the end of the text instead"
                )


def _identity(config: DataConfig, source: Source) -> dict[str, Any]:
    """Everything that decides the tokens."""
    return {
        "format_version": FORMAT_VERSION,
        "source": config.source,
        "source_identity": source.identity,
        "field": config.field,
        "tokenizer": tokenizer_identity(config.tokenizer),
        "validation": config.validation,
        "validation_fraction": config.validation_fraction,
    }


def _group(items: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Consecutive pieces, `size` characters or a little more at a time."""
    group: list[Piece] = []
    held = 0
    for item in items:
        group.append(item)
        held += len(item.text)
        if held >= size:
            yield group
            group, held = [], 0
    if group:
        yield group


# Files


def _claim(directory: Path, identity: dict[str, Any]) -> None:
    """Makes an unfinished directory ours; what was begun there for other text is dropped."""
    path = directory / CLAIM
    if not path.is_file():
        if any(not file.name.endswith(".tmp") for file in directory.iterdir()):
            raise ValueError(f"{directory} is not empty and holds no corpus; choose another place")
    elif json.loads(path.read_text()) != identity:
        _remove(directory, SPEC_FILE, "part-*.json", "train-*.bin", "validation-*.bin")
    _remove(directory, ".*.tmp")
    _write_json(path, identity)


def _remove(directory: Path, *patterns: str) -> None:
    for pattern in patterns:
        for file in directory.glob(pattern):
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Waits for another builder of the same directory; the kernel frees a dead one's lock."""
    with _writing(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: see the module's head
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot write {place}: {error.strerror}; choose another place (--output, data.cache)"
        ) from None


def _write(path: Path, content: bytes) -> None:
    """Puts a whole file in place, or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)


def _write_json(path: Path, content: Any) -> None:
    _write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
