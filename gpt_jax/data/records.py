"""Records of a local file of examples, or of TensorFlow Datasets, each with where it stands.

What the fields mean is said elsewhere: `gpt_jax.evaluate.formats` for evaluation tasks, a config's
task section for fine-tuning. Must not import jax.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt_jax.storage import compressed, tables
from gpt_jax.storage.optional import require


class Located(NamedTuple):
    """A record, and where it stands: "FILE line 3". Errors about the record begin with it."""

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
    """Records of a file: those of `gpt_jax.storage.tables`, parquet, and a .txt that is a JSON
    document; of a folder, those of all its files in order of their names; of a name such as
    test.{en,de}, pairs of lines.

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
        yield from parse(tables.read_text(path), suffix_of(path), str(path))


def files_below(folder: Path) -> list[Path]:
    """A folder's files, hidden ones left out, in order of their names."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")


def suffix_of(path: Path) -> str:
    """The ending that says a file's format, without that of a compression."""
    return path.with_suffix("").suffix if path.suffix.lower() in compressed.FORMATS else path.suffix


def pair(path: Path) -> list[Path]:
    """The two files of a name such as test.{en,de}.gz."""
    before, _, rest = path.name.partition("{")
    inner, _, after = rest.partition("}")
    return [path.with_name(before + part + after) for part in inner.split(",")]


def _parallel(path: Path) -> Iterator[Located]:
    languages = path.name.partition("{")[2].partition("}")[0].split(",")
    texts = [tables.read_text(file).rstrip("\n").split("\n") for file in pair(path)]
    if len(texts[0]) != len(texts[1]):
        raise ValueError(f"{path}: {len(texts[0])} and {len(texts[1])} lines are no pairs")
    for number, lines in enumerate(zip(*texts, strict=True), 1):
        yield Located(f"{path} line {number}", dict(zip(languages, lines, strict=True)))


def parse(text: str, suffix: str, name: str) -> Iterator[Located]:
    """Records of a file's text; `name` of the file begins each place. What was guessed or left out
    is said on stderr."""
    if suffix == ".txt" and text.lstrip()[:1] == "{":
        suffix = ".json"
    if suffix not in tables.SUFFIXES:
        known = ", ".join((*tables.SUFFIXES, ".parquet"))
        raise ValueError(
            f"{name} is not in a form that is known for {suffix}; known are {known}, and a .txt "
            "that is one JSON document"
        )
    table = tables.parse(text, suffix, name)
    for note in table.notes:
        print(note, file=sys.stderr)
    for row in table.rows:
        yield Located(row.where, row)


def _parquet(path: Path) -> Iterator[Located]:
    parquet, arrow = require("pyarrow.parquet", "data"), require("pyarrow", "data")
    try:
        found = parquet.read_table(path).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {error}") from None
    for number, record in enumerate(found, 1):
        yield Located(f"{path} row {number}", record)


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
