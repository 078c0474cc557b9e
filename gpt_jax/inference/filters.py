"""Filters of prompts and generated texts: listed words, personal data. Off unless asked for.

Must not import jax.
"""

import argparse
import dataclasses
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from gpt_jax.data.personal import redact


def read_stop_list(path: str | Path) -> tuple[str, ...]:
    """A word or phrase a line; empty lines and those that begin with # are left out.

    Raises ValueError for a file that cannot be read or holds none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"--stop-list {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"--stop-list {path}: not a text in UTF-8") from None
    listed = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not listed:
        raise ValueError(f"--stop-list {path}: no word in it; allowed: a word or phrase a line")
    return listed


@functools.lru_cache(maxsize=8)
def _whole_words(listed: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words, in any case."""
    return re.compile(rf"(?<!\w)(?:{_any_of(set(listed))})(?!\w)", re.IGNORECASE)


def _any_of(words: set[str]) -> str:
    """A pattern in which words share their beginnings: thousands are not tried one by one."""
    start = os.path.commonprefix([*words])  # noqa: RUF071
    rest: dict[str, set[str]] = {}
    for word in words:
        if word != start:
            rest.setdefault(word[len(start)], set()).add(word[len(start) :])
    if not rest:
        return re.escape(start)
    branches = "|".join(_any_of(rest[first]) for first in sorted(rest))
    return f"{re.escape(start)}(?:{branches}){'?' if start in words else ''}"


@dataclasses.dataclass(frozen=True)
class Filters:
    """Filters of prompts, before the model reads them, and of generated texts, before they are
    shown."""

    stop_list: Sequence[str] = ()
    """Words and phrases, in any case: a prompt with one is refused, a text ends before it."""
    personal_data: bool = False
    """Whether personal data are replaced."""

    def __bool__(self) -> bool:
        return bool(self.stop_list) or self.personal_data

    def prompt(self, text: str) -> str:
        """Raises ValueError for a listed word."""
        listed = self._find(text)
        if listed:
            raise ValueError(f"the prompt has '{listed[0]}', which the stop list does not allow")
        return redact(text) if self.personal_data else text

    def cuts(self, text: str) -> bool:
        """Whether a text ends at a listed word."""
        return self._find(text) is not None

    def output(self, text: str) -> str:
        listed = self._find(text)
        text = text[: listed.start()] if listed else text
        return redact(text) if self.personal_data else text

    def _find(self, text: str) -> re.Match[str] | None:
        """The first listed word: whole, not inside of another."""
        return _whole_words(tuple(self.stop_list)).search(text) if self.stop_list else None


NO_FILTERS = Filters()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line options that `make_filters` reads."""
    parser.add_argument(
        "--stop-list",
        metavar="FILE",
        help="words and phrases, a line each: refused in a prompt; a text ends before one",
    )
    parser.add_argument(
        "--redact",
        action="store_true",
        help="replace personal data in prompts and texts: [email], [card], [phone], ...",
    )


def make_filters(arguments: argparse.Namespace) -> Filters:
    """Raises ValueError for a stop list that cannot be read."""
    listed = read_stop_list(arguments.stop_list) if arguments.stop_list else ()
    return Filters(listed, arguments.redact)
