"""Where text comes from: every source as a stream of named documents, in a stable order.

Names and order decide the held-out split, so they depend on the corpus and not on the machine.
What cannot be read to its end, or is no text, is a ValueError that names the file and the place.
Each source is an entry (`gpt_jax.data.source_entry`). Must not import jax, nor TensorFlow.
"""

from collections.abc import Iterator

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source
from gpt_jax.data.source_entry import SOURCES


def documents(config: DataConfig) -> Iterator[Document]:
    """All documents of the source that a config names; empty ones are left out.

    Those held out by the names of their files come first. Raises ValueError when the source is
    not there, is not readable, or lacks data.field.
    """
    source = open_source(config)
    for read in (source.read_validation, source.read):
        for document in read() if read is not None else ():
            if document.text:
                yield document


def open_source(config: DataConfig) -> Source:
    """The source that a config names. Raises ValueError when it is not there."""
    entry = SOURCES.find(config.source)
    if entry.open is None:
        of_text = [name for name in SOURCES.names() if SOURCES.find(name).open is not None]
        raise ValueError(
            f"data.source = {config.source} is already made of tokens; text comes from "
            f"{', '.join(of_text)}"
        )
    return entry.open(config, entry.read_options(config.options, "data.options"))
