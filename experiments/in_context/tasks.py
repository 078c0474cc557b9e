"""A family of tasks that can only be learned from the context: a new substitution cipher each time.

A document draws a permutation of twelve letters and shows small letters, each followed by the
capital that it stands for. That is told by the pairs before alone, so accuracy at the next letter
can rise with the number of pairs shown, K, and no amount of training replaces them:

    gpt-jax eval runs/in_context/trials/TRIAL --tasks cipher-0,cipher-8 --task-file \
        experiments/in_context/tasks.py

Must not import jax.
"""

import functools
import math

import numpy as np

from gpt_jax.evaluate.tasks import Item, Record, Task

LETTERS = "abcdefghijkl"
PAIRS = 40
"""In a document, which then holds 120 bytes."""
SHOTS = (0, 1, 2, 4, 8, 16, 32)
N_ITEMS = 1000


def document(random: np.random.Generator, pairs: int = PAIRS) -> list[tuple[str, str]]:
    """(letter, its capital) for random letters under one random permutation."""
    cipher = random.permutation(len(LETTERS))
    drawn = random.integers(len(LETTERS), size=pairs)
    return [(LETTERS[i], LETTERS[cipher[i]].upper()) for i in drawn]


def text(pairs: list[tuple[str, str]]) -> str:
    """Pairs with a space after each: "aK cB aK "."""
    return "".join(f"{letter}{capital} " for letter, capital in pairs)


def items(seed: int, shots: int) -> list[Item]:
    """Items whose context shows `shots` pairs, and a letter whose capital is asked for."""
    random = np.random.default_rng([seed, shots, N_ITEMS])
    found = []
    for _ in range(N_ITEMS):
        *shown, (letter, answer) = document(random, shots + 1)
        found.append(Item(text(shown) + letter, (answer,)))
    return found


def best_accuracy(shots: int) -> float:
    """The expected accuracy of the best guesser, exactly.

    A letter that was shown is known. Of one that was not, the best guess is among the capitals not
    shown: right with probability 1/m for m of them. P(not shown) / m, summed over m, is (expected m
    / n) / m = 1/n times the probability that m > 0: every letter shown has probability near 0 for
    few shots, and is counted by inclusion and exclusion.
    """
    n = len(LETTERS)
    known = 1 - (1 - 1 / n) ** shots
    signs = ((-1) ** j * math.comb(n, j) * (1 - j / n) ** shots for j in range(n + 1))
    return known + (1 - sum(signs)) / n


def _unread(_: Record) -> list[Item]:
    raise AssertionError("items of the cipher are made from a seed, not read")


TASKS = [
    Task(
        f"cipher-{shots}", (), _unread, kind="cloze", make=functools.partial(items, shots=shots),
        source="a random permutation of twelve letters, experiments/in_context",
    )
    for shots in SHOTS
]  # fmt: skip
