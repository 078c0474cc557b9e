"""Files of text, each of them a document. Must not import jax."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source
from gpt_jax.data.file_source import UTF_16, of_files
from gpt_jax.data.source_entry import SourceEntry


def open_text(config: DataConfig, options: Any) -> Source:
    """Each file is a document."""

    def read(name: str, path: Path) -> Iterator[Document]:
        yield Document(name, _whole_text(path, config.max_expansion))

    return of_files(config, "text of", (), read)


def _whole_text(path: Path, max_expansion: int) -> str:
    """The text of a file. Raises ValueError for one that is no UTF-8, or expands beyond reason."""
    from gpt_jax.data.reading import reading
    from gpt_jax.storage.compressed import FORMATS, most_bytes, too_large

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


ENTRY = SourceEntry(name="text", summary="files of text, a document each", open=open_text)
