"""Where text comes from: every source as a stream of named documents, in a stable order.

Names and order decide the held-out split, so they depend on the corpus and not on the machine.
pyarrow, datasets, tensorflow_datasets and zstandard are imported where used. Must not import
jax, nor TensorFlow.
"""

import contextlib
import dataclasses
import glob
import gzip
import hashlib
import io
import json
import os
import platform
import sysconfig
import tokenize
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gpt_jax.config import DataConfig
from gpt_jax.data.optional import require

STDLIB_LEAVES_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
)
COMPRESSED = (".gz", ".zst")


class Document(NamedTuple):
    """A text, and a name that is the same on every machine."""

    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A corpus that can be read, more than once, in the same order."""

    description: str
    """One line for the manifest."""
    identity: str
    """Changes when the text may have changed; cheap to know (names, sizes, times of change)."""
    read: Callable[[], Iterator[Document]]


def documents(config: DataConfig) -> Iterator[Document]:
    """All documents of the source that a config names; empty ones are left out.

    Raises ValueError when the source is not there, is not readable, or lacks data.field.
    """
    return (document for document in open_source(config).read() if document.text)


def open_source(config: DataConfig) -> Source:
    """The source that a config names. Raises ValueError when it is not there."""
    openers: dict[str, Callable[[DataConfig], Source]] = {
        "stdlib": _stdlib,
        "text": _text,
        "jsonl": _jsonl,
        "parquet": _parquet,
        "huggingface": _huggingface,
        "tfds": _tfds,
    }
    if config.source not in openers:
        raise ValueError(
            f"data.source = {config.source} is already made of tokens; text comes from "
            f"{', '.join(openers)}"
        )
    return openers[config.source](config)


# Files


def _stdlib(config: DataConfig) -> Source:
    """Every .py file of the standard library, tests left out (about 12 MB)."""
    root = Path(sysconfig.get_path("stdlib"))
    files = {name: root / name for name in _walk(root, STDLIB_LEAVES_OUT) if name.endswith(".py")}

    def read() -> Iterator[Document]:
        for name, path in files.items():
            with open(path, "rb") as stream:
                encoding, _ = tokenize.detect_encoding(stream.readline)
            yield Document(name, path.read_bytes().decode(encoding))

    description = f"standard library of Python {platform.python_version()}, {len(files)} files"
    return Source(description, _identity(files), read)


def _text(config: DataConfig) -> Source:
    """Each file is a document."""
    files = _find(config.path, ())

    def read() -> Iterator[Document]:
        for name, path in files.items():
            with _reading(path) as stream:
                yield Document(name, stream.read().decode())

    return Source(f"text of {_count(files)}", _identity(files), read)


def _jsonl(config: DataConfig) -> Source:
    """Each line is a record; lines end at "\\n" only (text may hold U+2028 and the like)."""
    files = _find(config.path, (".jsonl", ".json", ".ndjson"))

    def read() -> Iterator[Document]:
        for name, path in files.items():
            with _reading(path) as stream:
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        where = f"{path}, line {number}"
                        yield Document(f"{name}:{number}", _record_text(line, config.field, where))

    return Source(f"field {config.field!r} of {_count(files)}", _identity(files), read)


def _parquet(config: DataConfig) -> Source:
    """Each row is a document."""
    parquet = require("pyarrow.parquet", "data")
    arrow = require("pyarrow", "data")
    files = _find(config.path, (".parquet",))

    def read() -> Iterator[Document]:
        for name, path in files.items():
            try:
                table = parquet.ParquetFile(path)
            except arrow.ArrowInvalid as error:
                raise ValueError(f"{path} is not a readable Parquet file: {error}") from None
            _check_field(config.field, table.schema_arrow.names, str(path))
            row = 0
            for group in table.iter_batches(columns=[config.field]):
                for value in group.column(0).to_pylist():
                    row += 1
                    yield Document(f"{name}:{row}", _as_text(value, f"{path}, row {row}"))

    return Source(f"field {config.field!r} of {_count(files)}", _identity(files), read)


def _find(path: str, suffixes: Sequence[str]) -> dict[str, Path]:
    """{name: path} of a file, a glob's files, or a directory's with one of the suffixes."""
    given = Path(path).expanduser()
    if given.is_file():
        return {given.name: given}
    if given.is_dir():
        found = {name: given / name for name in _walk(given, frozenset())}
        names = [n for n in found if not suffixes or _bare(n).endswith(tuple(suffixes))]
        if not names:
            kinds = f" {' or '.join(suffixes)}" if suffixes else ""
            raise ValueError(f"data.path = {path}; the directory holds no{kinds} files")
        return {name: found[name] for name in names}
    matches = [Path(p) for p in sorted(glob.glob(str(given), recursive=True)) if os.path.isfile(p)]
    if not matches:
        raise ValueError(f"data.path = {path}; no such file or directory, and no file matches it")
    base = os.path.commonpath([p.parent for p in matches])
    return {p.relative_to(base).as_posix(): p for p in matches}


def _walk(root: Path, leave_out: frozenset[str]) -> list[str]:
    """Names, relative to root, of all files that are not hidden; sorted."""
    names = []
    for directory, children, files in os.walk(root):
        children[:] = [c for c in children if c not in leave_out and not c.startswith(".")]
        relative = Path(directory).relative_to(root)
        names += [(relative / file).as_posix() for file in files if not file.startswith(".")]
    return sorted(names)


def _bare(name: str) -> str:
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, uncompressed; what goes wrong while they are used names the file."""
    failures: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    try:
        with contextlib.ExitStack() as stack:
            stream: Any = stack.enter_context(open(path, "rb"))
            if path.suffix == ".gz":
                stream = stack.enter_context(gzip.open(stream))
            elif path.suffix == ".zst":
                zstandard = require("zstandard", "data")
                failures += (zstandard.ZstdError,)
                reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
                stream = io.BufferedReader(reader)
            yield stream
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start:,}") from None
    except failures as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def _identity(files: Mapping[str, Path], *more: str) -> str:
    """A digest of names, places, sizes and times of change."""
    digest = hashlib.sha256(repr(more).encode())
    for name, path in files.items():
        status = path.stat()
        entry = (name, str(path.resolve()), status.st_size, status.st_mtime_ns)
        digest.update(repr(entry).encode())
    return digest.hexdigest()


def _count(files: Mapping[str, Path]) -> str:
    return f"{len(files):,} files" if len(files) > 1 else next(iter(files))


# Records


def _record_text(line: bytes, field: str, where: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where} is not a JSON object")
    _check_field(field, record, where)
    return _as_text(record[field], where)


def _check_field(field: str, names: Iterable[str], where: str) -> None:
    known = list(names)
    if field not in known:
        raise ValueError(f"{where} has no field {field!r} (data.field); it has {', '.join(known)}")


def _as_text(value: Any, where: str) -> str:
    """A record's text as valid Unicode: JSON may hold lone surrogates, which become U+FFFD."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        raise ValueError(f"{where} holds {type(value).__name__} where text is needed (data.field)")
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


# Data set libraries


def _huggingface(config: DataConfig) -> Source:
    """NAME, NAME:CONFIGURATION, or a directory; its train split, or its only one."""
    datasets = require("datasets", "data")
    path = Path(config.path).expanduser()
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        found = datasets.load_from_disk(str(path))
    else:
        name, _, configuration = config.path.partition(":")
        try:
            found = datasets.load_dataset(name, configuration or None)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise ValueError(
                f"cannot load the Hugging Face data set {config.path}: {_first_line(error)} "
                "(a set that is not on this machine needs the network)"
            ) from None
    if isinstance(found, datasets.DatasetDict):
        if "train" not in found and len(found) > 1:
            raise ValueError(f"{config.path} has no train split; it has {', '.join(found)}")
        found = found["train" if "train" in found else next(iter(found))]
    _check_field(config.field, found.column_names, config.path)
    column = found.select_columns([config.field])

    def read() -> Iterator[Document]:
        for row, record in enumerate(column):
            where = f"{config.path}:{row}"
            yield Document(f"{row}", _as_text(record[config.field], where))

    files = {Path(f["filename"]).name: Path(f["filename"]) for f in found.cache_files}
    description = f"Hugging Face data set {config.path}, {len(found):,} records"
    return Source(description, _identity(files, config.path, str(len(found))), read)


def _tfds(config: DataConfig) -> Source:
    """NAME[:VERSION] or the directory of a prepared set, in ArrayRecord; its train split."""
    tfds = require("tensorflow_datasets", "data")
    try:
        if (Path(config.path) / "dataset_info.json").is_file():
            builder = tfds.builder_from_directory(config.path)
        else:
            builder = tfds.builder(config.path, file_format="array_record")
        records = builder.as_data_source(split="train")
    except (ImportError, KeyError, NotImplementedError, OSError, ValueError) as error:
        raise ValueError(
            f"TFDS data set {config.path} is not prepared as ArrayRecord on this machine; "
            f"`tfds build {config.path} --file_format=array_record` does it where there is a "
            f"network and, for many sets, TensorFlow ({_first_line(error)})"
        ) from None
    _check_field(config.field, builder.info.features, config.path)

    def read() -> Iterator[Document]:
        for row in range(len(records)):
            where = f"{config.path}, record {row}"
            yield Document(f"{row}", _as_text(records[row][config.field], where))

    directory = Path(str(builder.data_path))
    files = {name: directory / name for name in _walk(directory, frozenset())}
    name = builder.info.full_name
    description = f"TFDS {name}, {len(records):,} records"
    return Source(description, _identity(files, name, str(len(records))), read)


def _first_line(error: BaseException) -> str:
    message = str(error.args[0]) if error.args else type(error).__name__
    return message.strip().split("\n")[0].rstrip(".:")
