"""Entry of a published table of runs: its authors, files, columns, and published numbers.

Imports nothing heavy, so that a list of the tables costs nothing. Must not import jax.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt_jax.hints import did_you_mean

NOT_STATED = "none stated"
NOT_SEEN = "not known here"
"""The repository may have a licence: its licence file could not be read when the entry was made."""

Record = Mapping[str, Any]
"""A row of theirs: {column: cell}, with FILE added."""
FILE = "@file"
"""Name of the file that a record was read from."""
Cell = str | Callable[[Record], Any]
"""Column of theirs, or a function of a record; a missing value is None or an empty text."""
Columns = Mapping[str, Cell]
Document = Mapping[str, Any]
"""JSON that a command of `gpt-jax fit` wrote."""


@dataclass(frozen=True)
class File:
    """One file of a table."""

    name: str
    """Name in the cache and in a folder that the user gives."""
    url: str | None = None
    """None: only read from a folder."""
    sha256: str | None = None
    """None: its bytes could not be had when the entry was made; the first download's digest is
    kept, and later ones must match it."""
    mirrors: tuple[str, ...] = ()
    """Further addresses of the same bytes, tried in order."""


@dataclass(frozen=True)
class Form:
    """One form in which a table can be had, and its columns in the schema."""

    files: tuple[File, ...]
    columns: Columns | Callable[[Sequence[str]], Columns]
    """{column of the schema: cell}, or a function of their columns' names that gives it."""
    prepare: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
    """Records as they were read -> one record a row of ours."""
    remark: str = ""
    """A line for the user who gets this form."""


@dataclass(frozen=True)
class Value:
    """A number of ours beside a published one."""

    value: float
    interval: Sequence[float | None] | None = None
    """95%; None inside is open"""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Number:
    """A published number and how ours is found."""

    name: str
    printed: str
    """With its printed digits."""
    pick: Callable[[Sequence[Document]], Value]
    """Documents of the check's commands, in order -> ours."""
    computed: bool = False
    """Whether ours must round to the printed digits (the same computation on the same numbers),
    and not lie in an interval of a fit."""


@dataclass(frozen=True)
class Check:
    """Commands that repeat a published fit, and the numbers that must come out."""

    commands: tuple[tuple[str, ...], ...]
    """Words after `gpt-jax`; TABLE stands for the table, other files are of `RunsEntry.files`."""
    numbers: tuple[Number, ...]
    where: str
    """Table or equation where they are printed."""
    title: str = ""


@dataclass(frozen=True)
class RunsEntry:
    """A published table of runs."""

    name: str
    title: str
    authors: str
    paper: str
    """arXiv id"""
    licence: str
    repository: str
    """owner/name on GitHub"""
    commit: str
    forms: tuple[Form, ...]
    """Tried in order."""
    constants: Mapping[str, str]
    """{column of the schema: the same cell in every row}: convention, corpus, tokenizer."""
    rows: int | None
    """Rows of the table; None: not counted when the entry was made."""
    verified: str
    """Checks of this entry when it was made, and how they were done."""
    checks: tuple[Check, ...] = ()
    no_check: str = ""
    """Why there are no checks."""
    notes: tuple[str, ...] = ()
    files: Mapping[str, Any] = field(default_factory=dict)
    """{suffix: JSON} written beside the table for its commands, such as a chain's spec."""

    @property
    def address(self) -> str:
        """Repository at the commit."""
        return f"https://github.com/{self.repository}/tree/{self.commit}"


TABLE = "TABLE"
"""Stands for the table's file in a command."""

ENTRIES: dict[str, RunsEntry] = {}


def register(entry: RunsEntry) -> None:
    """Make a table known by its name; raises ValueError if another one has it."""
    if ENTRIES.get(entry.name, entry) != entry:
        raise ValueError(f"a table named {entry.name} is known already; give yours another name")
    ENTRIES[entry.name] = entry


def find_entry(name: str) -> RunsEntry:
    """The entry of that name; raises ValueError naming the nearest."""
    if name not in ENTRIES:
        hint = did_you_mean(name, ENTRIES, cutoff=0.5)
        raise ValueError(f"no table of runs '{name}'; there are {', '.join(ENTRIES)}{hint}")
    return ENTRIES[name]


def raw(repository: str, commit: str, path: str) -> str:
    """Address of a file in a repository on GitHub at a commit."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


def parameter(symbol: str, at: int = 0) -> Callable[[Sequence[Document]], Value]:
    """A fitted parameter and its 95% interval, from the document of the `at`-th command."""

    def pick(documents: Sequence[Document]) -> Value:
        document = documents[at]
        interval = document["intervals"].get(symbol, {}).get("95")
        return Value(document["parameters"][symbol], interval, tuple(document.get("warnings", ())))

    return pick


def parameters(printed: Mapping[str, str]) -> tuple[Number, ...]:
    """The numbers of a fit's check, from {symbol: printed}."""
    return tuple(Number(symbol, text, parameter(symbol)) for symbol, text in printed.items())


def product(*columns: str, times: float = 1.0) -> Callable[[Record], float | None]:
    """A cell that is a product of theirs; missing where one is."""

    def cell(record: Record) -> float | None:
        result = times
        for column in columns:
            if str(record[column]).strip().lower() in ("", "nan"):
                return None
            result *= float(record[column])
        return result

    return cell
