"""Parquet files, each row a document; pyarrow is imported where used. Must not import jax."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source, as_text, check_field
from gpt_jax.data.file_source import of_files
from gpt_jax.data.source_entry import SourceEntry
from gpt_jax.storage.compressed import most_bytes, too_large
from gpt_jax.storage.optional import require

ROWS = 32
"""Rows of a Parquet file in memory at a time: a page may hold one long text many times over."""


def open_parquet(config: DataConfig, options: Any) -> Source:
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

    return of_files(config, f"field {config.field!r} of", (".parquet",), read)


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


ENTRY = SourceEntry(name="parquet", summary="Parquet files, a row a document", open=open_parquet)
