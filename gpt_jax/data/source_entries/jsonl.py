"""Files of JSON lines, each line a record that holds a document. Must not import jax."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source, record_text
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


ENTRY = SourceEntry(name="jsonl", summary="files of JSON lines, a record each", open=open_jsonl)
