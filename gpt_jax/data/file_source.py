"""A source whose documents are in files. Must not import jax."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source
from gpt_jax.data.files import Files, Found, expanded, identity

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How a file of UTF-16 begins."""

ReadFile = Callable[[str, Path], Iterator[Document]]
"""(name in the corpus, path) -> its documents."""


def of_files(
    config: DataConfig, description: str, suffixes: tuple[str, ...], read_file: ReadFile
) -> Source:
    """The source whose documents are in files, some of them perhaps held out by their names."""
    given = expanded(config.path)
    found = Found({given.name: given})
    if not given.is_file():
        from gpt_jax.data.folders import find_several

        found = find_several(config.path, suffixes, config.named_splits)

    def reader(files: Files) -> Callable[[], Iterator[Document]]:
        def read() -> Iterator[Document]:
            for name, path in files.items():
                yield from read_file(name, path)

        return read

    description = f"{description} {_count(found.train)}"
    if not (found.validation or found.unread):
        return Source(description, identity(found.train), reader(found.train), notes=found.notes)
    held_out = found.validation if config.validation_fraction else {}
    return Source(
        description + (f", {_count(held_out)} held out" if held_out else ""),
        identity(found.train, "held out", identity(held_out)),
        reader(found.train),
        reader(held_out) if held_out else None,
        found.notes,
        identity(found.every),
    )


def _count(files: Mapping[str, Path]) -> str:
    return f"{len(files):,} files" if len(files) > 1 else next(iter(files))
