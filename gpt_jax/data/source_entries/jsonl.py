"""Files of JSON lines, each line a record that holds a document. Must not import jax."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source, as_text, check_field
from gpt_jax.data.file_source import UTF_16, of_files
from gpt_jax.data.source_entry import SourceEntry

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")


def open_jsonl(config: DataConfig, options: Any) -> Source:
    """Each line is a record; lines end at "\\n" only (text may hold U+2028 and the like)."""

    def read(name: str, path: Path) -> Iterator[Document]:
        for number, line in enumerate(_lines(path, config.max_expansion), 1):
            if number == 1 and line.startswith(UTF_16):
                raise ValueError(f"{path} is UTF-16; write it in UTF-8 (iconv -f UTF-16 -t UTF-8)")
            if line.strip():
                where = f"{path}, line {number:,}"
                yield Document(f"{name}:{number}", record_text(line, config.field, where))

    return of_files(config, f"field {config.field!r} of", JSON_SUFFIXES, read)


def _lines(path: Path, max_expansion: int) -> Iterator[bytes]:
    """Lines of a file, as long as they come. Raises ValueError for one that is beyond reason."""
    from gpt_jax.data.reading import reading
    from gpt_jax.storage.compressed import FORMATS, most_bytes, too_large

    most = most_bytes(path, max_expansion) if path.suffix in FORMATS else None
    number = 0
    with reading(path) as stream:
        while line := stream.readline(-1 if most is None else most + 1):
            number += 1
            if most is not None and len(line) > most:
                raise too_large(path, f"{path}, line {number:,}", most, max_expansion)
            yield line


def record_text(line: bytes, field: str, where: str) -> str:
    """The text in a line of JSON. Raises ValueError saying where and what is wrong with it."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: {error.reason} at its byte {error.start:,}") from (
            None
        )
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} is JSON nested too deeply to be read") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where} is not a JSON object")
    check_field(field, record, where)
    return as_text(record[field], where)


ENTRY = SourceEntry(name="jsonl", summary="files of JSON lines, a record each", open=open_jsonl)
