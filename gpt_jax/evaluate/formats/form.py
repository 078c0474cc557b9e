"""Forms of a task's records, told apart by their fields, and checked readers of these.

A field is named by a path: "question.stem" is the field stem of the field question. Whatever a
record lacks, or holds in a way that no form allows, is a ValueError of one line. Must not import
jax.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpt_jax.evaluate.tasks import Item, Record

ABSENT = object()
SHOWN = 60
"""Characters of a value that an error shows."""


@dataclasses.dataclass(frozen=True)
class Form:
    """One way in which a data set's records are published."""

    name: str
    """Who publishes it so."""
    fields: tuple[str, ...]
    """Paths that a record of this form has; others are not looked at."""
    read: Callable[[Record], Iterable[Item]]


@dataclasses.dataclass(frozen=True)
class Forms:
    """A task's `read`: items of a record in the first of the forms whose fields it has."""

    forms: tuple[Form, ...]

    def __call__(self, record: Record) -> Iterator[Item]:
        """Raises ValueError naming the fields found and the forms known, or the field at fault."""
        yield from self.form_of(record).read(record)

    def form_of(self, record: Record) -> Form:
        """The form of a record. Raises ValueError where it has none."""
        if not isinstance(record, Mapping):
            raise ValueError(f"the record is {shown(record)}, not an object with fields")
        for form in self.forms:
            if all(look_up(record, path) is not ABSENT for path in form.fields):
                return form
        found = ", ".join(_paths(record)) or "none"
        known = "; ".join(f"{form.name} ({', '.join(form.fields)})" for form in self.forms)
        raise ValueError(f"fields found: {found}; forms known: {known}")


def look_up(record: Any, path: str) -> Any:
    """The value of a field, or ABSENT."""
    for name in path.split("."):
        if not isinstance(record, Mapping) or name not in record:
            return ABSENT
        record = record[name]
    return record


def shown(value: Any) -> str:
    """A value as an error shows it: on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def text(record: Record, path: str, blank: bool = False) -> str:
    """A field's text, without white space at its ends. Raises ValueError for another type, or for
    nothing but white space where `blank` is not allowed."""
    value = look_up(record, path)
    if not isinstance(value, str):
        raise ValueError(f"field {path} is {_type(value)}; it must be text")
    if not value.strip() and not blank:
        raise ValueError(f"field {path} is empty")
    return value.strip()


def texts(record: Record, path: str, least: int = 2) -> tuple[str, ...]:
    """A field's list of texts. Raises ValueError for fewer than `least`, or anything else in it."""
    value = look_up(record, path)
    if not _is_list(value):
        raise ValueError(f"field {path} is {_type(value)}; it must be a list of texts")
    for number, x in enumerate(value, 1):
        if not isinstance(x, str) or not x.strip():
            raise ValueError(f"field {path}: its entry {number} is {shown(x)}; it must be text")
    if len(value) < least:
        raise ValueError(f"field {path} has {len(value)} entries; it needs {least} or more")
    return tuple(x.strip() for x in value)


def objects(record: Record, path: str) -> list[Record]:
    """A field's list of objects with fields. Raises ValueError for anything else."""
    value = look_up(record, path)
    if not _is_list(value) or not all(isinstance(x, Mapping) for x in value):
        raise ValueError(f"field {path} is {shown(value)}; it must be a list of objects")
    return list(value)


def integer(record: Record, path: str, least: int, most: int) -> int:
    """A field's integer, or the text of one. Raises ValueError outside [least, most]; data sets
    mark what has no answer by -1 or an empty text."""
    value = look_up(record, path)
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise ValueError(
            f"field {path} is {shown(value)}; allowed: {least} to {most}{_no_answer(value)}"
        )
    return number


def one_of(record: Record, path: str, values: Mapping[Any, int]) -> int:
    """The table's entry for a field's value. Raises ValueError for a value that is not in it."""
    value = look_up(record, path)
    key = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(key, str | int) or key not in values:
        allowed = ", ".join(map(str, values))
        raise ValueError(f"field {path} is {shown(value)}; allowed: {allowed}{_no_answer(value)}")
    return values[key]


def position(record: Record, path: str, labels: Sequence[Any]) -> int:
    """Which of the choices' labels a field holds. Raises ValueError where it is none or several
    choices have it."""
    value = look_up(record, path)
    names = [str(label).strip() for label in labels]
    name = str(value).strip() if isinstance(value, str | int) else None
    if names.count(name or "") != 1:
        raise ValueError(
            f"field {path} is {shown(value)}; it must be one of the choices' labels "
            f"{shown(names)}{_no_answer(value)}"
        )
    return names.index(name or "")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _no_answer(value: Any) -> str:
    """A hint for values that mean: no answer is published."""
    unlabelled = value is None or value == -1 or (isinstance(value, str) and not value.strip())
    return " (test splits are published without answers)" if unlabelled else ""


def _type(value: Any) -> str:
    return "absent" if value is ABSENT else shown(value)


def _paths(record: Record, before: str = "") -> Iterator[str]:
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"
