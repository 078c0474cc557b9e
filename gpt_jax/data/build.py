"""Makes token shards out of text, in parallel and resumably, and finds those made before.

The text is taken in parts of about PART_BYTES. A part's shards depend on its text alone and are
put in place by an atomic rename, its record last: a killed build continues after the last
recorded part and ends in the same bytes, and two builders cannot spoil each other's work (a
lock merely keeps the second from repeating it).

Tokenizers release the interpreter's lock, so the workers are threads: nothing is pickled, no
process has to be forked after jax has started its own threads, and a kill takes all of them.
Must not import jax.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_jax.config import DataConfig, overrides
from gpt_jax.data.documents import Document, Source
from gpt_jax.data.finished import CLAIM, UNFINISHED, make_identity, open_finished, remove, say_lines
from gpt_jax.data.output import locked, write, write_json, writing
from gpt_jax.data.parts import Part, chunks, group, not_empty
from gpt_jax.data.progress import report_bytes
from gpt_jax.data.shards import (
    DOCUMENT_DTYPE,
    FORMAT_VERSION,
    MANIFEST,
    SEAL,
    Corpus,
    ShardRecord,
    manifest_seal,
    summary,
)
from gpt_jax.data.sources import open_source
from gpt_jax.data.splits import LEFT_OUT, Piece, pieces, sample_blocks, utf8
from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer
from gpt_jax.data.tokenizers.base import SPEC_FILE
from gpt_jax.data.tokenizers.making import bpe_size, make_tokenizer
from gpt_jax.data.verified import note_written
from gpt_jax.hints import counted
from gpt_jax.storage.checksum import checksum

PART_BYTES = 128 << 20
"""Text in a shard: what a killed build loses at most, and what it holds in memory."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
BPE_CHARACTERS_PER_TOKEN = 1_000
"""bpe:SIZE learns from this many characters for each token, evenly taken from the corpus.

On the standard library (12 MB, SIZE 4096) all of the text would give 0.6% fewer tokens and take
three times as long.
"""


class Encoded(NamedTuple):
    """The tokens of consecutive parts of pieces; n_bytes counts their UTF-8 text."""

    tokens: list[NDArray[Any]]
    n_bytes: int


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
    identity = make_identity(config, source)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        written = not (directory / MANIFEST).is_file()
        if written:
            _claim(directory, identity)
            manifest = _Builder(config, source, directory, workers, progress, part_bytes).manifest()
            manifest |= {"identity": identity}
            write_json(directory / MANIFEST, manifest | {SEAL: manifest_seal(manifest)})
            remove(directory, *UNFINISHED)
    if written:
        return note_written(Corpus(directory))
    return open_finished(config, source, directory, progress)


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
        self.n_characters = self.n_bytes = self.n_copies = self.n_empty = self.n_replaced = 0
        self.notes = list(source.notes)
        self.split = self._split()
        if self.split.validation == "tail" or bpe_size(config.tokenizer):
            for document in self._documents():
                self.n_characters += len(document.text)
                self.n_bytes += sum(map(len, utf8(document.text)))
        self.tokenizer = self._make_tokenizer()
        self.dtype = np.dtype("<u2" if self.tokenizer.vocab_size <= 1 << 16 else "<u4")

    def _split(self) -> DataConfig:
        """The config, or one that holds out the tail where no document is for one of the splits.

        Reads until both have one: usually some 1 / validation_fraction documents.
        """
        config = self.config
        if config.validation == "tail" or self.source.read_validation is not None:
            return config
        if config.validation_fraction in (0, 1):
            return config
        left = {"train", "validation"}
        n_documents = 0
        for piece in pieces(self._documents(), config, 0):
            n_documents += 1
            left.discard(piece.split)
            if not left:
                return config
        if n_documents:
            self.notes.append(
                f"none of {n_documents:,} documents fell into the {min(left)} split: the last "
                f"{config.validation_fraction:.3g} of the text is held out instead "
                "(data.validation = tail)"
            )
        return dataclasses.replace(config, validation="tail")

    def _documents(self) -> Iterator[Document]:
        """All documents that hold text; empty ones, and those with U+FFFD, are counted."""
        self.n_empty = self.n_replaced = 0
        for document in self.source.read():
            self.n_replaced += REPLACEMENT in document.text
            if document.text:
                yield document
            else:
                self.n_empty += 1
            del document

    def _pieces(self) -> Iterator[Piece]:
        """All but copies of what is held out, which are counted."""
        self.n_copies = 0
        read_validation = self.source.read_validation
        held_out = None if read_validation is None else not_empty(read_validation())
        for piece in pieces(self._documents(), self.split, self.n_characters, held_out):
            if piece.split == LEFT_OUT:
                self.n_copies += 1
            else:
                yield piece
            del piece

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

        name, files = self.config.tokenizer, self.config.tokenizer_path
        tokenizer = make_tokenizer(name, files, texts, self.progress)
        with writing(self.directory):
            tokenizer.save(self.directory)
        return tokenizer

    def manifest(self) -> dict[str, Any]:
        """Makes whatever part is not there yet, and sums up. Nothing in it depends on the run."""
        found: dict[str, list[ShardRecord]] = {"train": [], "validation": []}
        with (
            ThreadPoolExecutor(self.workers or os.cpu_count()) as pool,
            report_bytes("tokenizing", self.n_bytes or None, self.progress) as advance,
        ):
            for index, part in enumerate(group(self._pieces(), self.part_bytes)):
                records = self._recorded(index)
                if records is None:
                    records = self._write_part(index, part, pool, advance)
                else:
                    advance(sum(record.n_bytes for record in records.values()))
                for split, record in records.items():
                    found[split].append(record)
                part.clear()  # its text is not kept while the next part is read
        self._check_splits(found)
        if self.n_copies:
            self.notes.append(
                f"left out of training, for the validation files have them too: "
                f"{counted(self.n_copies, 'document')}"
            )
        if self.n_empty:
            self.notes.append(f"left out as empty: {counted(self.n_empty, 'document')}")
        if self.n_replaced:
            self.notes.append(
                f"U+FFFD stands for characters that were not valid (lone surrogates in JSON "
                f"become it) in {counted(self.n_replaced, 'document')}"
            )
        if self.progress:
            say_lines(*self.notes)
        tokenizer = self.tokenizer
        config = dataclasses.asdict(self.config)
        known = overrides.fields()
        machines = {key for key, info in known.items() if info.facts.scope == "machine"}
        return {
            "format_version": FORMAT_VERSION,
            "source": {"kind": self.config.source, "description": self.source.description},
            **({"notes": self.notes} if self.notes else {}),
            "config": {k: v for k, v in config.items() if f"data.{k}" not in machines},
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
        """Shard records of a part that an interrupted build finished, by split; None where the
        part's record is missing or a token file is missing or has another size."""
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
        done: dict[str, list[Encoded]] = {}
        work = list(chunks(part, self.tokenizer))
        for chunk, encoded in zip(work, pool.map(self._encode, work), strict=True):
            for (piece, begin, _), (tokens, n_bytes) in zip(chunk, encoded, strict=True):
                of_split = done.setdefault(piece.split, [])
                if begin:
                    before = of_split.pop()
                    tokens, n_bytes = before.tokens + tokens, before.n_bytes + n_bytes
                of_split.append(Encoded(tokens, n_bytes))
            advance(sum(n_bytes for _, n_bytes in encoded))
        records = {
            split: self._write_shard(f"{split}-{index:05d}", encoded)
            for split, encoded in sorted(done.items())
        }
        content = {split: dataclasses.asdict(record) for split, record in records.items()}
        write_json(self.directory / f"part-{index:05d}.json", content)
        return records

    def _encode(self, chunk: Sequence[Part]) -> list[Encoded]:
        """Each part's tokens, with the end of text where one follows."""
        encoded = []
        for part in chunk:
            text = part.piece.text[part.begin : part.end]
            tokens = [self.tokenizer.encode(text).astype(self.dtype)]
            if part.last and part.piece.ends and self.tokenizer.end_of_text is not None:
                tokens.append(np.array([self.tokenizer.end_of_text], self.dtype))
            encoded.append(Encoded(tokens, sum(map(len, utf8(text)))))
        return encoded

    def _write_shard(self, name: str, encoded: Sequence[Encoded]) -> ShardRecord:
        tokens = [ids for document in encoded for ids in document.tokens]
        lengths = [sum(map(len, document.tokens)) for document in encoded]
        starts = [np.cumsum([0, *lengths[:-1]]).astype(DOCUMENT_DTYPE)]
        record = ShardRecord(
            name=name,
            n_documents=len(encoded),
            n_tokens=sum(lengths),
            n_bytes=sum(document.n_bytes for document in encoded),
            sha256=checksum(array.data for array in tokens),
            documents_sha256=checksum(array.data for array in starts),
        )
        for file, content in zip(record.files(), (tokens, starts), strict=True):
            write(self.directory / file, content)
        return record

    def _check_splits(self, found: dict[str, list[ShardRecord]]) -> None:
        wanted = ["train", "validation"] if self.config.validation_fraction else ["train"]
        n_documents = sum(r.n_documents for records in found.values() for r in records)
        for split in wanted:
            if not sum(record.n_tokens for record in found[split]):
                remedy = "data.validation = tail holds out the end of the text instead"
                if self.split.validation == "tail":
                    remedy = "use more text, or another fraction"
                raise ValueError(
                    f"no text fell into the {split} split: {n_documents:,} documents, "
                    f"data.validation_fraction = {self.config.validation_fraction}; {remedy}"
                )


# Files


def _claim(directory: Path, identity: dict[str, Any]) -> None:
    """Makes an unfinished directory ours; what was begun there for other text is dropped."""
    path = directory / CLAIM
    if not path.is_file():
        if any(not file.name.endswith(".tmp") for file in directory.iterdir()):
            raise ValueError(f"{directory} is not empty and holds no corpus; choose another place")
    elif json.loads(path.read_text()) != identity:
        remove(directory, SPEC_FILE, "part-*.json", "train-*.bin", "validation-*.bin")
    remove(directory, ".*.tmp")
    write_json(path, identity)
