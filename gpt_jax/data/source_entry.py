"""Fields of the entry of a data source. Must not import jax.

`gpt_jax/data/source_entries/` holds one file for each; `SOURCES.register` adds one from elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.config import entries as tables
from gpt_jax.config.entries import Entry, Table
from gpt_jax.data.documents import Source


@dataclass(frozen=True, kw_only=True)
class SourceEntry(Entry):
    """A source that `data.source` can name."""

    open: Callable[[DataConfig, Any], Source] | None
    """(the `data` section, the entry's own options) -> documents. Raises ValueError where there are
    none. None: the source is made of tokens already (`gpt_jax.data.corpora` opens it)."""
    needs_path: bool = True
    """Whether data.path has to be given."""
    path_is_local: bool = True
    """Whether data.path is a file or directory, and not a name in a library."""


SOURCES: Table[SourceEntry] = tables.SOURCES
