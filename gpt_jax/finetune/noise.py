"""Texts with the mistakes that people make: how much of a score is left? Must not import jax."""

import random
from collections.abc import Callable, Sequence
from typing import Any

CHARACTER_RATE, WORD_RATE = 0.05, 0.1
"""Share of letters, and of pairs of neighbouring words, that are changed."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Record = dict[str, Any]


def noisy_characters(text: str, draw: random.Random) -> str:
    """Each letter, at CHARACTER_RATE, is swapped with the next, left out, doubled or replaced."""
    made, i = [], 0
    while i < len(text):
        c = text[i]
        if not c.isalpha() or draw.random() >= CHARACTER_RATE:
            made.append(c)
        else:
            kind = draw.randrange(4)
            if kind == 0 and i + 1 < len(text):
                made += [text[i + 1], c]
                i += 1
            elif kind == 1:
                made += [c, c]
            elif kind == 2:
                made.append(draw.choice(LETTERS))
        i += 1
    return "".join(made)


def swapped_words(text: str, draw: random.Random) -> str:
    """Each word, at WORD_RATE, changes places with the next."""
    words, i = text.split(" "), 0
    while i + 1 < len(words):
        if draw.random() < WORD_RATE:
            words[i], words[i + 1] = words[i + 1], words[i]
            i += 1
        i += 1
    return " ".join(words)


NOISE: dict[str, Callable[[str, random.Random], str]] = {
    "character_noise": noisy_characters,
    "word_swaps": swapped_words,
}


def perturbed(found: Sequence[Record], fields: Sequence[str], kind: str, seed: int) -> list[Record]:
    """The records with noise in the texts of `fields`; a function of the seed and each one's place.

    Lists of texts (options) are perturbed one by one.
    """
    made = []
    for i, record in enumerate(found):
        draw = random.Random(f"{seed} {kind} {i}")
        changed = dict(record)
        for field in fields:
            value = record[field]
            if isinstance(value, list):
                changed[field] = [NOISE[kind](str(text), draw) for text in value]
            else:
                changed[field] = NOISE[kind](str(value), draw)
        made.append(changed)
    return made
