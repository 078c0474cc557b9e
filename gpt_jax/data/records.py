"""Records of a local file of examples, or of TensorFlow Datasets, each with where it stands.

What the fields mean is said elsewhere: `gpt_jax.evaluate.formats` for evaluation tasks, a config's
task section for fine-tuning. Must not import jax.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt_jax.data.optional import require

UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
KNOWN = ".jsonl, .json, .csv, .tsv, .parquet, and a .txt that is one JSON document"


class Located(NamedTuple):
    """A record, and where it stands: "FILE, line 3". Errors about the record begin with it."""

    where: str
    record: Any
    """Usually a dict; whoever reads its fields checks that it is one."""


def find(data: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is in the directory, or below it."""
    for name in names:
        if "{" in name:  # a pair of files with the same lines in two languages
            first, _ = pair(Path(name))
            found = find(data, [first.name])
            if found is not None:
                return found.with_name(name)
            continue
        if (data / name).exists():
            return data / name
        deeper = sorted(data.glob(f"**/{name}"))
        if deeper:
            return deeper[0]
    return None


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a file or folder: `located` without the places."""
    for found in located(path):
        yield found.record


def located(path: Path) -> Iterator[Located]:
    """Records of a file: jsonl, json, csv, tsv, parquet, with .gz, .bz2 or .xz; of a folder, those
    of all its files in order of their names; of a name such as test.{en,de}, pairs of lines.

    Raises ValueError for another kind of file, or one that does not hold what its name says.
    """
    if "{" in path.name:
        yield from _parallel(path)
    elif path.is_dir():
        for file in files_below(path):
            yield from located(file)
    elif suffix_of(path) == ".parquet":
        yield from _parquet(path)
    else:
        yield from parse(read_text(path), suffix_of(path), str(path))


def files_below(folder: Path) -> list[Path]:
    """A folder's files, hidden ones left out, in order of their names."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")


def suffix_of(path: Path) -> str:
    """The ending that says a file's format, without that of a compression."""
    return path.with_suffix("").suffix if path.suffix in UNPACK else path.suffix


def read_text(path: Path) -> str:
    """A file's text, unpacked and without a byte order mark; line ends as they are.

    Raises ValueError naming the file where it is cut short, damaged, or not UTF-8 (UTF-16 is read
    where its byte order mark says so).
    """
    content = path.read_bytes()
    if path.suffix in UNPACK:
        try:
            content = UNPACK[path.suffix](content)
        except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
            raise ValueError(f"{path} cannot be unpacked: {error}") from None
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start:,}") from None


def pair(path: Path) -> list[Path]:
    """The two files of a name such as test.{en,de}.gz."""
    before, _, rest = path.name.partition("{")
    inner, _, after = rest.partition("}")
    return [path.with_name(before + part + after) for part in inner.split(",")]


def _parallel(path: Path) -> Iterator[Located]:
    languages = path.name.partition("{")[2].partition("}")[0].split(",")
    texts = [read_text(file).rstrip("\n").split("\n") for file in pair(path)]
    if len(texts[0]) != len(texts[1]):
        raise ValueError(f"{path}: {len(texts[0])} and {len(texts[1])} lines are no pairs")
    for number, lines in enumerate(zip(*texts, strict=True), 1):
        yield Located(f"{path}, line {number}", dict(zip(languages, lines, strict=True)))


def parse(text: str, suffix: str, name: str) -> Iterator[Located]:
    """Records of a file's text; `name` of the file begins each place."""
    if suffix == ".jsonl":
        # Not splitlines: a string may hold U+2028.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                where = f"{name}, line {number}"
                yield Located(where, load_json(line, where))
    elif suffix == ".json" or (suffix == ".txt" and text.lstrip()[:1] == "{"):
        value = load_json(text, name)
        for number, record in enumerate(value if isinstance(value, list) else [value], 1):
            yield Located(f"{name}, record {number}", record)
    elif suffix in (".csv", ".tsv"):
        (_, header), *found = rows(text, suffix, name)
        for number, cells in found:
            where = f"{name}, line {number}"
            if len(cells) != len(header):
                raise ValueError(f"{where}: {len(cells)} fields, the header has {len(header)}")
            yield Located(where, dict(zip(header, cells, strict=True)))
    else:
        raise ValueError(f"{name} is not in a form that is known for {suffix}; known are {KNOWN}")


def load_json(text: str, where: str) -> Any:
    """A JSON value. Raises ValueError beginning with `where` for text that is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{where}: JSON that is nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if "\n" not in text else f"line {error.lineno}"
        raise ValueError(f"{where}: not JSON: {error.msg} at {place}") from None


def rows(text: str, suffix: str, name: str) -> list[tuple[int, list[str]]]:
    """(line, cells) of a table's rows, the header with them, blank lines left out.

    A .csv file quotes as RFC 4180 says; a .tsv file has no quotes: each tab ends a cell.
    Raises ValueError where the table is empty or a quote is not closed.
    """
    if suffix == ".tsv":
        lines = enumerate(text.split("\n"), 1)
        found = [(number, line.rstrip("\r").split("\t")) for number, line in lines if line.strip()]
    else:
        csv.field_size_limit(2**31 - 1)
        reader, begin, found = csv.reader(io.StringIO(text, newline=""), strict=True), 1, []
        try:
            for cells in reader:
                if any(cells):
                    found.append((begin, cells))
                begin = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{name}, line {begin}: not CSV: {error}") from None
    if not found:
        raise ValueError(f"{name} is empty")
    return found


def _parquet(path: Path) -> Iterator[Located]:
    parquet, arrow = require("pyarrow.parquet", "data"), require("pyarrow", "data")
    try:
        found = parquet.read_table(path).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {error}") from None
    for number, record in enumerate(found, 1):
        yield Located(f"{path}, row {number}", record)


def tfds_records(name: str, split: str, directory: Path | None = None) -> Iterator[dict[str, Any]]:
    """Records of a prepared set of TensorFlow Datasets, strings decoded; needs no TensorFlow.

    directory: of TFDS; none = its default. Raises ValueError where the set is not prepared.
    """
    tfds = require("tensorflow_datasets", "data")
    try:
        where = None if directory is None else str(directory)
        builder = tfds.builder(name, data_dir=where, file_format="array_record")
        source = builder.as_data_source(split=split)
    except (ImportError, KeyError, NotImplementedError, OSError, ValueError) as error:
        raise ValueError(
            f"TFDS data set {name} ({split}) is not prepared as ArrayRecord on this machine: "
            f"tfds build {name} --file_format=array_record ({type(error).__name__})"
        ) from None
    for i in range(len(source)):
        yield _plain(source[i])


def _plain(value: Any) -> Any:
    """Bytes as text, arrays as lists."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value
