"""Fields of the entry of a tokenizer. Must not import jax.

`gpt_jax/data/tokenizers/entries/` holds one file for each that has a name; `TOKENIZERS.register`
adds one. Files of other libraries (tokenizer.json, .model) are read by their endings.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpt_jax.config import entries as tables
from gpt_jax.config.entries import Entry, Table
from gpt_jax.data.tokenizers.base import Tokenizer


class Making(NamedTuple):
    """The parts that a tokenizer is made from."""

    name: str
    """data.tokenizer, whole."""
    argument: str
    """Text after the colon of data.tokenizer; empty without one."""
    path: str
    """data.tokenizer_path."""
    texts: Callable[[], Iterable[str]] | None
    """The texts to learn from; None where there are none."""
    progress: bool
    """Whether to say that it is learned, with a bar on a terminal."""

    def learned_from(self) -> Iterable[str]:
        """The texts to learn from. Raises ValueError without any."""
        if self.texts is None:
            raise ValueError(
                f"data.tokenizer = {self.name} is learned from a corpus, and none was given"
            )
        return self.texts()


@dataclass(frozen=True, kw_only=True)
class TokenizerEntry(Entry):
    """A tokenizer that `data.tokenizer` can name, as NAME or NAME:ARGUMENT. It has no options."""

    make: Callable[[Making], Tokenizer]
    argument: str = ""
    """Regular expression of the argument; empty = there is none."""
    restore: Callable[[Mapping[str, Any], str], Tokenizer] | None = None
    """(saved description, where it was found) -> the tokenizer, of a description whose `kind` is
    the entry's name; None: it is saved as another kind."""


TOKENIZERS: Table[TokenizerEntry] = tables.TOKENIZERS
