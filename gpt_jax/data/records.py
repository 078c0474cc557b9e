"""Records of a local file of examples, or of TensorFlow Datasets. Must not import jax."""

import bz2
import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt_jax.data.optional import require

UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress}
HELLASWAG_LINES = 6
"""Of an item in the text form: label, context, index of the right ending, four endings."""


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
    """Records of a file: jsonl, json, csv, tsv, txt, with .gz or .bz2; of a folder, all its files.

    A .txt file is a JSON document (RACE), CBT's numbered lines, or HellaSwag's six lines an item.
    Raises ValueError for another kind of file, or one that does not hold what its name says.
    """
    if "{" in path.name:
        yield from _parallel(path)
        return
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != "."):
            yield from read(file)
        return
    suffix = path.with_suffix("").suffix if path.suffix in UNPACK else path.suffix
    try:
        yield from parse(read_text(path), suffix)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{path} is not in a form that is known for {suffix}: {error}") from None


def read_text(path: Path) -> str:
    """A file's text, unpacked; line ends as they are."""
    content = path.read_bytes()
    if path.suffix in UNPACK:
        content = UNPACK[path.suffix](content)
    return content.decode("utf-8")


def pair(path: Path) -> list[Path]:
    """The two files of a name such as test.{en,de}.gz."""
    before, _, rest = path.name.partition("{")
    inner, _, after = rest.partition("}")
    return [path.with_name(before + part + after) for part in inner.split(",")]


def _parallel(path: Path) -> Iterator[dict[str, Any]]:
    languages = path.name.partition("{")[2].partition("}")[0].split(",")
    texts = [read_text(file).rstrip("\n").split("\n") for file in pair(path)]
    if len(texts[0]) != len(texts[1]):
        raise ValueError(f"{path}: {len(texts[0])} and {len(texts[1])} lines are no pairs")
    for lines in zip(*texts, strict=True):
        yield dict(zip(languages, lines, strict=True))


def parse(text: str, suffix: str) -> Iterator[dict[str, Any]]:
    """Records of a file's text."""
    if suffix == ".jsonl":
        # Not splitlines: a string may hold U+2028.
        yield from (json.loads(line) for line in text.split("\n") if line.strip())
    elif suffix == ".json":
        value = json.loads(text)
        yield from value if isinstance(value, list) else [value]
    elif suffix in (".csv", ".tsv"):
        delimiter = "\t" if suffix == ".tsv" else ","
        yield from csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    elif suffix == ".txt" and text.lstrip()[:1] == "{":
        yield json.loads(text)
    elif suffix == ".txt" and text.startswith("1 "):
        yield from _cbt(text)
    elif suffix == ".txt":
        yield from _hellaswag(text)
    else:
        raise ValueError("known are jsonl, json, csv, tsv and txt")


def _hellaswag(text: str) -> Iterator[dict[str, Any]]:
    lines = text.rstrip("\n").split("\n")
    if len(lines) % HELLASWAG_LINES:
        raise ValueError(f"{len(lines)} lines are not six an item")
    for i in range(0, len(lines), HELLASWAG_LINES):
        context, gold, *endings = lines[i : i + HELLASWAG_LINES]
        label, _, context = context.partition(": ")
        yield {"activity_label": label, "ctx": context, "label": int(gold), "endings": endings}


def _cbt(text: str) -> Iterator[dict[str, Any]]:
    """Twenty numbered sentences and a query with its answer and candidates, tab separated."""
    for block in text.strip().split("\n\n"):
        lines = [line.partition(" ")[2] for line in block.split("\n")]
        query, answer, *rest = lines[-1].split("\t")
        candidates = [c for c in rest[-1].split("|") if c]
        yield {
            "sentences": lines[:-1],
            "question": query.strip(),
            "answer": answer,
            "options": candidates,
        }


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
