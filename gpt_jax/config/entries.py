"""Tables of entries: what a config chooses by name, each choice held by one file.

A table lists the files of one folder of this package and imports one when a config asks for it by
name, so that choices that nobody made cost nothing. A user's file adds entries with `register`
(`gpt_jax.config.extensions` runs it). Must not import jax.
"""

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from gpt_jax.config import notation
from gpt_jax.config.fields import section

PACKAGE = Path(__file__).resolve().parent.parent


@section
class NoOptions:
    """Options of an entry that has none."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Fields of every kind of entry; a kind adds what the rest of the package needs to know."""

    name: str
    """As configs and command lines name it."""
    summary: str
    """A line for lists of entries."""
    source: str = ""
    """Paper, with its equation or section."""
    options: Any = NoOptions
    """The fields of its own: a `gpt_jax.config.fields.section`; they are read from the `options`
    of the config's section."""

    def read_options(self, given: Mapping[str, Any], key: str) -> Any:
        """The options given, validated, with defaults; key: where the config has them.

        Raises ValueError for an unknown option, naming those there are, or a value that does not
        fit.
        """
        known = tuple(self.options.__pydantic_fields__)
        for option in given:
            if option not in known:
                raise ValueError(unknown_option(f"{key}.{option}", self.name, option, known))
        try:
            return self.options(**given)
        except ValidationError as error:
            from gpt_jax.config import wording

            first = error.errors()[0]
            if not first["loc"]:  # a check of several options
                raise ValueError(f"{key}: {wording.reason(first)}") from None
            option = str(first["loc"][0])
            annotation = notation.annotation_of(self.options.__pydantic_fields__[option])
            if first["type"] == "missing":
                allowed = wording.describe(annotation)
                raise ValueError(f"{self.name} needs {key}.{option} ({allowed})") from None
            raise ValueError(wording.refusal(f"{key}.{option}", first, annotation)) from None


def unknown_option(key: str, owner: str, option: str, known: Sequence[str]) -> str:
    """The line for an option that an entry does not have."""
    from gpt_jax.hints import did_you_mean

    has = f"has {', '.join(known)}" if known else "has no options"
    return f"{key} is unknown: {owner} {has}{did_you_mean(option, known)}"


E = TypeVar("E", bound=Entry)


REGISTERING: list[str] = []
"""Digests of the extensions that are being run, the innermost last."""


class Table(Generic[E]):
    """The entries of one kind, by name."""

    def __init__(self, setting: str, folder: str, library: str = "", without: str = ""):
        """
        Args:
          setting: the config key that names an entry, for messages.
          folder: dotted path of the package whose modules each hold one `ENTRY` of its own name.
          library: "module:function", which makes an entry of a name that no file has, or returns
            None; imported when such a name is asked for.
          without: a name that asks for no entry: pretraining has no task.
        """
        self.setting, self.folder, self.library = setting, folder, library
        self.without = without
        self._registered: dict[str, E] = {}
        self._origins: dict[str, str] = {}

    @functools.cached_property
    def _files(self) -> dict[str, str]:
        """{name: module} of this package's own entries."""
        place = PACKAGE.joinpath(*self.folder.split(".")[1:])
        found = sorted(module.name for module in pkgutil.iter_modules([str(place)]))
        return {name: f"{self.folder}.{name}" for name in found}

    def names(self) -> list[str]:
        """Names of this package's entries and of the registered ones."""
        return [*filter(None, [self.without]), *self._files, *self._registered]

    def __contains__(self, name: str) -> bool:
        known = name in self._files or name in self._registered
        return known or (bool(self.without) and name == self.without)

    def register(self, entry: E) -> None:
        """Make an entry known by its name; raises ValueError if another one has it."""
        if entry.name in self:
            raise ValueError(
                f"{self.setting} = {entry.name} is known already; give yours another name"
            )
        self._registered[entry.name] = entry
        self._origins[entry.name] = REGISTERING[-1] if REGISTERING else ""

    def origin(self, name: str) -> str:
        """Digest of the extension that registered an entry; empty for one of this package."""
        return self._origins.get(name, "")

    def find(self, name: str) -> E:
        """The entry of that name. Raises ValueError with the names that are allowed."""
        if name in self._registered:
            return self._registered[name]
        if name in self._files:
            entry: E = importlib.import_module(self._files[name]).ENTRY
            return entry
        if self.library and (made := self._from_library(name)):
            return made
        raise ValueError(self.refusal(name))

    def refusal(self, name: str) -> str:
        """The line for a name that nothing has."""
        from gpt_jax.hints import did_you_mean

        hint = did_you_mean(name, self.names())
        return (
            f"{self.setting} = {name}; allowed: {'|'.join(self.names())}{self.others}|what a file "
            f"of extensions registers{hint}"
        )

    @property
    def others(self) -> str:
        """Values that are allowed besides the names, for help and messages."""
        return "|any optax optimizer" if self.library else ""

    def _from_library(self, name: str) -> E | None:
        module, _, function = self.library.partition(":")
        made: E | None = getattr(importlib.import_module(module), function)(name)
        return made

    def check(self, name: str) -> None:
        """Raises ValueError for a name that nothing has; imports no entry that has a file."""
        if name not in self:
            self.find(name)


@dataclass(frozen=True)
class OneOf:
    """Says of a field that it names an entry of a table, or several.

    The name is checked when the whole config is (`Config`), not with its section: a config file
    makes its sections before the extensions that the config lists are run.
    """

    table: Table[Any]

    def allowed(self) -> str:
        """The names that the table has now."""
        return "|".join(self.table.names()) + self.table.others


def chosen(section: Any) -> Iterator[tuple[Table[Any], str]]:
    """(table, name) of each entry that a section of a config names."""
    for field, info in type(section).__pydantic_fields__.items():
        for item in info.metadata:
            if isinstance(item, OneOf):
                value = vars(section)[field]
                for name in value if isinstance(value, tuple) else (value,):
                    yield item.table, name


OPTIMIZERS: Table[Any] = Table(
    "optimizer.name", "gpt_jax.optim.entries", "gpt_jax.optim.from_optax:find"
)
SCHEDULES: Table[Any] = Table("schedule.name", "gpt_jax.optim.schedules")
OBJECTIVES: Table[Any] = Table("train.objective", "gpt_jax.objectives.entries")
TASKS: Table[Any] = Table("task.name", "gpt_jax.finetune.tasks", without="language_model")
TOKENIZERS: Table[Any] = Table("data.tokenizer", "gpt_jax.data.tokenizers.entries")
SOURCES: Table[Any] = Table("data.source", "gpt_jax.data.source_entries")
POSITIONS: Table[Any] = Table("model.position", "gpt_jax.models.positions")
SCORES: Table[Any] = Table("model.scores", "gpt_jax.models.scores")
LAYERS: Table[Any] = Table("model.layer_pattern", "gpt_jax.models.layer_kinds")
ACTIVATIONS: Table[Any] = Table("model.activation", "gpt_jax.models.activations")
NORMS: Table[Any] = Table("model.norm", "gpt_jax.models.norms")
