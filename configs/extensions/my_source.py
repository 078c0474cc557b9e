"""A data source of your own: a SQLite database, each row of a table a document.

    gpt-jax train quickstart --extension configs/extensions/my_source.py \
        --data.source sqlite --data.path reviews.db --data.options.column review
"""

import contextlib
import sqlite3
from pathlib import Path

from gpt_jax.config.fields import section
from gpt_jax.data.documents import Document, Source, as_text
from gpt_jax.data.files import identity
from gpt_jax.data.source_entry import SOURCES, SourceEntry


@section
class Options:
    """Settings of its own, beside the fields of `data`."""

    table: str = "documents"
    """Table of the database."""
    column: str = "text"
    """Column that holds the text."""


def open_sqlite(config, options):
    """The documents of data.path: names and order have to be the same on every machine."""
    path = Path(config.path)
    if not path.is_file():
        raise ValueError(f"data.path = {path}: no such file")
    query = f'SELECT rowid, "{options.column}" FROM "{options.table}" ORDER BY rowid'

    def read():
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            try:
                rows = database.execute(query)
            except sqlite3.DatabaseError as error:
                raise ValueError(f"{path}: {error}") from None
            for row, text in rows:
                yield Document(f"{path.name}:{row}", as_text(text, f"{path}, row {row}"))

    # The identity changes when the text may have: a corpus in the cache is then made anew.
    return Source(f"{options.column} of {path.name}", identity({path.name: path}), read)


SOURCES.register(
    SourceEntry(name="sqlite", summary="rows of a SQLite table", options=Options, open=open_sqlite)
)
