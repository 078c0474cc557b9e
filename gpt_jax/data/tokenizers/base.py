"""The interface of a tokenizer, and how it is stored beside its tokens. Must not import jax.

One contract for special tokens (end of text, turn marks, ...) whose names stand in a text, for all
tokenizers: text that is data (`encode`: corpora, examples, texts and items of evaluations) is
ordinary throughout, so nobody's text ends a document; a prompt (`encode_marked`: of generate and
inspect, of the server, a rendered chat template) means the tokens that it names.
"""

import contextlib
import copy
import dataclasses
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpt_jax.storage.atomic import replacing
from gpt_jax.storage.checksum import checksum

SPEC_FILE = "tokenizer_spec.json"
END_OF_TEXT = "<|endoftext|>"
"""How our own end-of-text tokens are shown by decode, and named in a prompt."""

Ids = NDArray[np.uint32]


@dataclasses.dataclass(frozen=True)
class Conventions:
    """How the texts of an imported model begin and end. The defaults are those of our own runs:
    the end-of-text token stands between documents, and before what has no context."""

    before: tuple[int, ...] = ()
    """Ids before the first of every text and prompt (Llama: `<s>`)."""
    begin: tuple[int, ...] = ()
    """Ids that stand before a text without context; () = `before`, or the end of text."""
    ends: tuple[int, ...] = ()
    """Ids that end a generated text; () = the end of text."""
    turn_end: int | None = None
    """The id after a turn of the assistant; None = the first of `ends`."""
    names: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Special tokens by the names that chat templates use: bos_token, eos_token, ..."""
    chat_template: str = ""
    """A Jinja template of turns, as `transformers` renders it; "" = none."""

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """From `dataclasses.asdict`, through JSON. Raises KeyError or TypeError for another."""
        turn_end = facts["turn_end"]
        return cls(
            before=tuple(map(int, facts["before"])),
            begin=tuple(map(int, facts["begin"])),
            ends=tuple(map(int, facts["ends"])),
            turn_end=None if turn_end is None else int(turn_end),
            names=dict(facts["names"]),
            chat_template=str(facts["chat_template"]),
        )


class Tokenizer(ABC):
    """Text to token ids below vocab_size, and back. Safe to use from several threads."""

    vocab_size: int
    end_of_text: int | None
    """The id that separates documents, or None where the vocabulary has none."""
    conventions = Conventions()

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Plain values from which `from_spec` rebuilds the vocabulary, files included."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """(n,) ids of ordinary text: nothing is added, no special token is recognised.

        Raises ValueError for text that the tokenizer cannot encode.
        """

    def cut(self, text: str, place: int) -> int:
        """The first place from `place` on where two parts give the ids of the whole text.

        The end of the text where none is known.
        """
        return len(text)

    @abstractmethod
    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of ids; bytes that are no valid UTF-8 become U+FFFD.

        Raises ValueError for an id outside the vocabulary.
        """

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for inside a text, also where they are no whole character.

        Where a tokenizer cannot tell (its text depends on the neighbours): of the token decoded
        alone. Raises ValueError for an id outside the vocabulary.
        """
        return self.decode([token]).encode()

    @property
    def special(self) -> Mapping[str, int]:
        """Name -> id of the tokens that a prompt may name."""
        return {} if self.end_of_text is None else {END_OF_TEXT: self.end_of_text}

    def encode_marked(self, text: str) -> Ids:
        """(n,) ids of a prompt: names of special tokens in it are these tokens, nothing is
        added."""
        special = self.special
        if not any(name in text for name in special):
            return self.encode(text)
        longest_first = sorted(special, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        ids = [
            np.array([special[piece]], np.uint32) if i % 2 else self.encode(piece)
            for i, piece in enumerate(pieces)
            if piece
        ]
        return np.concatenate(ids)

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end a generated text."""
        return self.conventions.ends or (() if self.end_of_text is None else (self.end_of_text,))

    def with_conventions(self, conventions: Conventions) -> Self:
        """The same vocabulary, used as `conventions` says."""
        made = copy.copy(self)
        made.conventions = conventions
        return made

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the vocabulary; conventions change no ids of a text that is data."""
        return checksum(_dump(self.spec))[:12]

    @property
    def saved(self) -> dict[str, Any]:
        """Plain values from which `from_spec` rebuilds all of this tokenizer."""
        if self.conventions == Conventions():
            return self.spec
        return self.spec | {"conventions": dataclasses.asdict(self.conventions)}

    @property
    def digest(self) -> str:
        """SHA-256 of the file that `save` writes, which a checkpoint seals."""
        return checksum(_dump(self.saved))

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer_spec.json, from which `load_tokenizer(directory)` rebuilds it."""
        path = Path(directory) / SPEC_FILE
        with replacing(path) as temporary:
            temporary.write_text(_dump(self.saved))

    def check_ids(self, ids: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """The ids as an array. Raises ValueError naming one that is outside the vocabulary."""
        array = np.asarray(ids, np.int64).reshape(-1)
        outside = array[(array < 0) | (array >= self.vocab_size)]
        if outside.size:
            raise ValueError(
                f"token id {outside[0]} is outside the vocabulary of {self.vocab_size:,}"
            )
        return array


@contextlib.contextmanager
def errors_named(where: str, what: str = " is damaged") -> Iterator[None]:
    """Errors of the tokenizer libraries inside the block as a ValueError of one line.

    They are written in Rust: a mistake in a file arrives as a bare Exception, or as a panic, which
    is a BaseException of no importable class.
    """
    try:
        yield
    except BaseException as error:
        panicked = type(error).__name__ == "PanicException"
        named = isinstance(error, ValueError) and str(error).startswith(where)
        if named or not (isinstance(error, Exception) or panicked):
            raise
        first = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, KeyError):
            first = f"{first} is missing"
        elif isinstance(error, RecursionError):
            first = "nested too deeply"
        raise ValueError(f"{where}{what}: {first}") from None


def _dump(spec: dict[str, Any]) -> str:
    return json.dumps(spec, ensure_ascii=False, sort_keys=True)
