"""Tables of people, .csv and .tsv: a row is a document. Must not import jax."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source, as_text, check_field
from gpt_jax.data.file_source import of_files
from gpt_jax.data.source_entry import SourceEntry
from gpt_jax.storage import tables

SUFFIXES = (".csv", ".tsv")


def open_csv(config: DataConfig, options: Any) -> Source:
    """Each row's cell in the column data.field is a document; a file is read as a whole."""

    def read(name: str, path: Path) -> Iterator[Document]:
        table = tables.read(path)
        check_field(config.field, table.columns, str(path))
        for row in table.rows:
            yield Document(f"{name}:{row.line}", as_text(row[config.field], row.where))

    return of_files(config, f"column {config.field!r} of", SUFFIXES, read)


ENTRY = SourceEntry(name="csv", summary="tables (.csv, .tsv), a row each", open=open_csv)
