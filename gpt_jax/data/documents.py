"""A document, a source of documents, and a record's text. Must not import jax."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Document(NamedTuple):
    """A text, and a name that is the same on every machine."""

    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A corpus that can be read, more than once, in the same order."""

    description: str
    """One line for the manifest."""
    identity: str
    """Changes when the text may have changed; cheap to know (names, sizes, times of change)."""
    read: Callable[[], Iterator[Document]]
    """All documents, or those to train on where others are held out by name."""
    read_validation: Callable[[], Iterator[Document]] | None = None
    """The documents of files named validation; none: the text is split by hash or at its tail."""
    notes: tuple[str, ...] = ()
    """A line on each thing that was left out or guessed."""
    earlier_identity: str = ""
    """The identity that versions gave it which trained on files of every name; empty = the same."""


def check_field(field: str, names: Iterable[str], where: str) -> None:
    """Raises ValueError where the field that holds the text is not among the names."""
    known = list(names)
    if field not in known:
        raise ValueError(f"{where} has no field {field!r} (data.field); it has {', '.join(known)}")


def as_text(value: Any, where: str) -> str:
    """A record's text as valid Unicode: JSON may hold lone surrogates, which become U+FFFD."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where} is not UTF-8: {error.reason} at its byte {error.start:,}"
            ) from None
    if not isinstance(value, str):
        raise ValueError(f"{where} holds {type(value).__name__} where text is needed (data.field)")
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
