"""Where text comes from: every source as a stream of named documents, in a stable order.

Names and order decide the held-out split, so they depend on the corpus and not on the machine.
What cannot be read to its end, or is no text, is a ValueError that names the file and the place.
pyarrow, datasets, tensorflow_datasets and zstandard are imported where used. Must not import
jax, nor TensorFlow.
"""

import platform
import sysconfig
import tokenize
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source, as_text, check_field, record_text
from gpt_jax.data.files import Files, find, identity, reading, walk
from gpt_jax.storage.compressed import FORMATS, most_bytes, too_large
from gpt_jax.storage.optional import require

STDLIB_LEAVES_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
)
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How a file of UTF-16 begins."""
ROWS = 32
"""Rows of a Parquet file in memory at a time: a page may hold one long text many times over."""

ReadFile = Callable[[str, Path], Iterator[Document]]


def documents(config: DataConfig) -> Iterator[Document]:
    """All documents of the source that a config names; empty ones are left out.

    Those held out by the names of their files come first. Raises ValueError when the source is
    not there, is not readable, or lacks data.field.
    """
    source = open_source(config)
    for read in (source.read_validation, source.read):
        for document in read() if read is not None else ():
            if document.text:
                yield document


def open_source(config: DataConfig) -> Source:
    """The source that a config names. Raises ValueError when it is not there."""
    openers: dict[str, Callable[[DataConfig], Source]] = {
        "stdlib": _stdlib,
        "text": _text,
        "jsonl": _jsonl,
        "parquet": _parquet,
        "huggingface": _library,
        "tfds": _library,
    }
    if config.source not in openers:
        raise ValueError(
            f"data.source = {config.source} is already made of tokens; text comes from "
            f"{', '.join(openers)}"
        )
    return openers[config.source](config)


def _library(config: DataConfig) -> Source:
    """A data set of a library, which is imported for it."""
    from gpt_jax.data.libraries import huggingface, tfds_source

    return huggingface(config) if config.source == "huggingface" else tfds_source(config)


def _stdlib(config: DataConfig) -> Source:
    """Every .py file of the standard library, tests left out (about 12 MB)."""
    root = Path(sysconfig.get_path("stdlib"))
    names, _ = walk(root, STDLIB_LEAVES_OUT)
    files = {name: root / name for name in names if name.endswith(".py")}

    def read() -> Iterator[Document]:
        for name, path in files.items():
            with open(path, "rb") as stream:
                encoding, _ = tokenize.detect_encoding(stream.readline)
            yield Document(name, path.read_bytes().decode(encoding))

    description = f"standard library of Python {platform.python_version()}, {len(files)} files"
    return Source(description, identity(files), read)


def _text(config: DataConfig) -> Source:
    """Each file is a document."""

    def read(name: str, path: Path) -> Iterator[Document]:
        yield Document(name, _whole_text(path, config.max_expansion))

    return _of_files(config, "text of", (), read)


def _jsonl(config: DataConfig) -> Source:
    """Each line is a record; lines end at "\\n" only (text may hold U+2028 and the like)."""

    def read(name: str, path: Path) -> Iterator[Document]:
        for number, line in enumerate(_lines(path, config.max_expansion), 1):
            if number == 1 and line.startswith(UTF_16):
                raise ValueError(f"{path} is UTF-16; write it in UTF-8 (iconv -f UTF-16 -t UTF-8)")
            if line.strip():
                where = f"{path}, line {number:,}"
                yield Document(f"{name}:{number}", record_text(line, config.field, where))

    return _of_files(config, f"field {config.field!r} of", JSON_SUFFIXES, read)


def _parquet(config: DataConfig) -> Source:
    """Each row is a document."""
    parquet = require("pyarrow.parquet", "data")
    failures = (require("pyarrow", "data").ArrowException, OSError)

    def read(name: str, path: Path) -> Iterator[Document]:
        most = most_bytes(path, config.max_expansion)
        for row, value in enumerate(_column(parquet, failures, path, config.field), 1):
            where = f"{path}, row {row:,}"
            text = as_text(value, where)
            if len(text) > most:
                raise too_large(path, where, most, config.max_expansion)
            yield Document(f"{name}:{row}", text)

    return _of_files(config, f"field {config.field!r} of", (".parquet",), read)


def _of_files(
    config: DataConfig, description: str, suffixes: tuple[str, ...], read_file: ReadFile
) -> Source:
    """The source whose documents are in files, some of them perhaps held out by their names."""
    found = find(config.path, suffixes, config.named_splits)

    def reader(files: Files) -> Callable[[], Iterator[Document]]:
        def read() -> Iterator[Document]:
            for name, path in files.items():
                yield from read_file(name, path)

        return read

    description = f"{description} {_count(found.train)}"
    if not (found.validation or found.unread):
        return Source(description, identity(found.train), reader(found.train), notes=found.notes)
    held_out = found.validation if config.validation_fraction else {}
    return Source(
        description + (f", {_count(held_out)} held out" if held_out else ""),
        identity(found.train, "held out", identity(held_out)),
        reader(found.train),
        reader(held_out) if held_out else None,
        found.notes,
        identity(found.every),
    )


def _count(files: Mapping[str, Path]) -> str:
    return f"{len(files):,} files" if len(files) > 1 else next(iter(files))


# Files


def _whole_text(path: Path, max_expansion: int) -> str:
    """The text of a file. Raises ValueError for one that is no UTF-8, or expands beyond reason."""
    with reading(path) as stream:
        if path.suffix not in FORMATS:
            content: bytes | bytearray = stream.read()
        else:
            most, content = most_bytes(path, max_expansion), bytearray()
            while piece := stream.read(1 << 20):
                content += piece
                if len(content) > most:
                    raise too_large(path, str(path), most, max_expansion)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        if content.startswith(UTF_16):
            raise ValueError(
                f"{path} is not UTF-8 but UTF-16; convert it (iconv -f UTF-16 -t UTF-8)"
            ) from None
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start:,} (line {line:,})"
        ) from None


def _lines(path: Path, max_expansion: int) -> Iterator[bytes]:
    """Lines of a file, as long as they come. Raises ValueError for one that is beyond reason."""
    most = most_bytes(path, max_expansion) if path.suffix in FORMATS else None
    number = 0
    with reading(path) as stream:
        while line := stream.readline(-1 if most is None else most + 1):
            number += 1
            if most is not None and len(line) > most:
                raise too_large(path, f"{path}, line {number:,}", most, max_expansion)
            yield line


def _column(
    parquet: ModuleType, failures: tuple[type[Exception], ...], path: Path, field: str
) -> Iterator[Any]:
    """The values of a Parquet file's column. Raises ValueError for a file that is damaged."""
    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
        names = file.schema_arrow.names
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    except failures as error:
        raise ValueError(f"{path} is not a readable Parquet file: {_line(error)}") from None
    check_field(field, names, str(path))
    first = 0
    for group, n_rows in enumerate(sizes):
        where = f"{path}, row group {group} (from row {first + 1:,})"
        found = 0
        try:
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=[field]):
                yield from _values(batch.column(0), f"{path}, row", first + found + 1)
                found += batch.num_rows
        except failures as error:
            raise ValueError(f"{where} is damaged: {_line(error)}") from None
        if found != n_rows:
            raise ValueError(f"{where} is damaged: {found:,} of its {n_rows:,} rows are there")
        first += n_rows


def _values(column: Any, where: str, first: int) -> list[Any]:
    """The values of some rows, the first of which has the number given."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        pass
    for row, value in enumerate(column, first):
        try:
            value.as_py()
        except UnicodeDecodeError as error:
            place = f"{where} {row:,}"
            raise ValueError(
                f"{place} is not UTF-8: {error.reason} at its byte {error.start:,}"
            ) from None
    raise AssertionError("a row that cannot be decoded was decoded")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
