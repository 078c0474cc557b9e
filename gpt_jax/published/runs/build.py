"""A published table's files made into the schema. Must not import jax."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt_jax.published.runs.entry import FILE, Form, RunsEntry
from gpt_jax.published.runs.schema import RunsTable, check, in_order, text_of
from gpt_jax.storage import csv_cells, tables
from gpt_jax.storage.optional import require


def build(entry: RunsEntry, form: Form, paths: list[Path]) -> RunsTable:
    """The table from its files, in the order of `form.files`.

    Raises ValueError naming the file and column of what does not fit the entry or the schema.
    """
    records: list[dict[str, Any]] = []
    for file, path in zip(form.files, paths, strict=True):
        records += [{**record, FILE: file.name} for record in _read(path)]
    if form.prepare is not None:
        records = form.prepare(records)
    if not records:
        raise ValueError(f"{entry.name}: {', '.join(str(path) for path in paths)} has no rows")
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = form.columns(names) if callable(form.columns) else form.columns
    for ours, cell in columns.items():
        if isinstance(cell, str) and cell not in names:
            raise ValueError(
                f"{entry.name}: no column '{cell}' (our {ours}) in {paths[0]}; it is another file "
                f"than the one this entry describes"
            )
    order = in_order([*columns, *entry.constants])
    rows = []
    for record in records:
        values: dict[str, Any] = {**entry.constants}
        for ours, cell in columns.items():
            values[ours] = record.get(cell) if isinstance(cell, str) else cell(record)
        rows.append(tuple(text_of(values[name]) for name in order))
    table = RunsTable(tuple(order), tuple(rows))
    check(table, entry.name)
    return table


def as_csv(table: RunsTable) -> str:
    """The table as text of a CSV file."""
    return csv_cells.as_csv(table.columns, table.rows)


def _read(path: Path) -> Iterator[Mapping[str, Any]]:
    """The records of one file: CSV, TSV, JSON, JSON lines, a notebook, or parquet."""
    if path.suffix == ".parquet":
        pyarrow = require("pyarrow.parquet", "data")
        yield from pyarrow.read_table(path).to_pylist()
    elif path.suffix == ".ipynb":
        yield from tables.parse(tables.read_text(path), ".json", str(path)).rows
    else:
        yield from tables.read(path, default=".csv").rows
