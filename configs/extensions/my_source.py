"""A data source of your own: a CSV file, each row a document.

    gpt-jax train quickstart --extension configs/extensions/my_source.py \
        --data.source csv --data.path reviews.csv --data.options.column review
"""

import csv

from gpt_jax.config.fields import section
from gpt_jax.data.documents import Document, Source, check_field
from gpt_jax.data.files import identity
from gpt_jax.data.source_entry import SOURCES, SourceEntry


@section
class Options:
    """Settings of its own, beside the fields of `data`."""

    column: str = "text"
    """The column that holds the text."""


def open_csv(config, options):
    """The documents of data.path: names and order have to be the same on every machine."""
    from pathlib import Path

    path = Path(config.path)
    if not path.is_file():
        raise ValueError(f"data.path = {path}: no such file")

    def read():
        with open(path, newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            check_field(options.column, rows.fieldnames or (), str(path))
            for number, row in enumerate(rows, 1):
                yield Document(f"{path.name}:{number}", row[options.column])

    # The identity changes when the text may have: a corpus in the cache is then made anew.
    return Source(f"column {options.column} of {path.name}", identity({path.name: path}), read)


SOURCES.register(
    SourceEntry(name="csv", summary="a CSV file, a row a document", options=Options, open=open_csv)
)
