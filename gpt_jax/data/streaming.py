"""Tokens into text while they come: nothing is shown that a later token could change.

Must not import jax.
"""

from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers import Tokenizer

SEPARATOR = "-" * 15
"""The line between two texts."""


def begin_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens before a text without context: an imported model's BOS, else the end of text, a
    line break, or token 0."""
    if tokenizer.conventions.begin:
        return tokenizer.conventions.begin
    if tokenizer.end_of_text is not None:
        return (tokenizer.end_of_text,)
    try:
        return tuple(int(i) for i in tokenizer.encode("\n")[:1]) or (0,)
    except ValueError:  # a character tokenizer whose corpus has one line
        return (0,)


def end_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that end a turn of the assistant. They are learned, and generation stops there."""
    if tokenizer.conventions.turn_end is not None:
        return (tokenizer.conventions.turn_end,)
    return tokenizer.ends[:1] or begin_tokens(tokenizer)


def with_beginning(tokenizer: Tokenizer, ids: Sequence[int] | NDArray[Any]) -> tuple[int, ...]:
    """The tokens of a context, as the model reads it: after its BOS where it has one; of an empty
    one, `begin_tokens`."""
    if not len(ids):
        return begin_tokens(tokenizer)
    return (*tokenizer.conventions.before, *(int(i) for i in ids))


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> NDArray[Any]:
    """The tokens of a prompt, which may name special tokens; of an empty one, `begin_tokens`."""
    return np.array(with_beginning(tokenizer, tokenizer.encode_marked(prompt)))


class Continuation:
    """The text of one row as its tokens come."""

    def __init__(self, tokenizer: Tokenizer, prompt: NDArray[Any], stop: Sequence[str]):
        self._tokenizer, self._stop = tokenizer, stop
        self._ids: list[int] = prompt.tolist()
        self._begin = len(tokenizer.decode(self._ids))
        self.text = ""
        """Text after the prompt, cut before the first stop string."""
        self.n_certain = 0
        """Characters of it that no later token can change or cut off."""
        self._first_stop = 0
        """Where a stop string may begin."""

    def add(self, tokens: Sequence[int], may_stop: bool = True) -> bool:
        """Takes tokens in; True if a stop string is reached, and no more may come.

        may_stop: whether it may be; what came before is then no part of a stop string either.
        """
        self._ids += tokens
        # Decoded with the prompt: what a token is as text may depend on the one before.
        self.text = self._tokenizer.decode(self._ids)[self._begin :]
        # The first bytes of a character are shown as U+FFFD until the others are there.
        settled = self.text.rstrip("\ufffd")
        if not may_stop:
            self.n_certain = self._first_stop = len(settled)
            return False
        places = [settled.find(stop, self._first_stop) for stop in self._stop]
        found = [place for place in places if place >= 0]
        if found:
            self.text = settled[: min(found)]
            self.n_certain = len(self.text)
            return True
        self.n_certain = len(settled) - _begun(settled[self._first_stop :], self._stop)
        return False


def _begun(text: str, stop: Sequence[str]) -> int:
    """Characters at the end of a text that may be the beginning of a stop string."""
    return max(
        (n for s in stop for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])),
        default=0,
    )


class Printer:
    """Writes prompts and continuations one after another, each as far as it is certain.

    A row of the batch is shown when those before it are complete.
    """

    def __init__(self, stream: TextIO, prompts: Sequence[str], rows: Sequence[Continuation]):
        self._stream, self._prompts, self._rows = stream, prompts, rows
        self._complete = [False] * len(rows)
        self._row, self._n_printed = 0, 0
        stream.write(prompts[0])
        stream.flush()

    def update(self, row: int, complete: bool) -> None:
        """Something came for a row, or nothing more will."""
        self._complete[row] |= complete
        while row == self._row:
            complete = self._complete[row]
            end = len(self._rows[row].text) if complete else self._rows[row].n_certain
            self._stream.write(self._rows[row].text[self._n_printed : end])
            self._n_printed = end
            if not complete:
                break
            self._stream.write("\n")
            self._row, self._n_printed = self._row + 1, 0
            if self._row == len(self._rows):
                break
            row = self._row
            self._stream.write(f"{SEPARATOR}\n{self._prompts[row]}")
        self._stream.flush()
