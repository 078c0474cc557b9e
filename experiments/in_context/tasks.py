"""A family of tasks that can only be learned from the context: a new substitution cipher each time.

A document draws five of twelve letters and a capital for each, and shows small letters, each
followed by the capital that it stands for. That is told by the pairs before alone, so accuracy at
the next letter can rise with the number of pairs shown, K, and no training replaces them:

    gpt-jax eval runs/in_context/trials/TRIAL --tasks cipher-0,cipher-8 --task-file \
        experiments/in_context/tasks.py

Must not import jax.
"""

import functools

import numpy as np

from gpt_jax.evaluate.tasks import Item, Record, Task

LETTERS = "abcdefghijkl"
IN_USE = 5
"""Letters of a document: that what was seen comes again is learned before what stands for what."""
PAIRS = 40
"""In a document, which then holds 120 bytes."""
SHOTS = (0, 1, 2, 4, 8, 16, 32)
N_ITEMS = 1000


def document(random: np.random.Generator, pairs: int = PAIRS) -> list[tuple[str, str]]:
    """(letter, its capital) for random ones of the document's letters."""
    small = random.permutation(len(LETTERS))[:IN_USE]
    capital = random.permutation(len(LETTERS))[:IN_USE]
    drawn = random.integers(IN_USE, size=pairs)
    return [(LETTERS[small[i]], LETTERS[capital[i]].upper()) for i in drawn]


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

    A letter that was shown is known. The capital of one that was not is any of those not shown:
    with m distinct letters shown, a guess is right with probability 1 / (12 - m).
    """
    distinct = {0: 1.0}
    """{m: probability that so many distinct letters were shown, none of them the one asked for}"""
    for _ in range(shots):
        after: dict[int, float] = {}
        for m, probability in distinct.items():
            after[m] = after.get(m, 0.0) + probability * m / IN_USE
            if m < IN_USE - 1:
                after[m + 1] = after.get(m + 1, 0.0) + probability * (IN_USE - 1 - m) / IN_USE
        distinct = after
    guessed = sum(probability / (len(LETTERS) - m) for m, probability in distinct.items())
    return 1 - sum(distinct.values()) + guessed


def _unread(_: Record) -> list[Item]:
    raise AssertionError("items of the cipher are made from a seed, not read")


TASKS = [
    Task(
        f"cipher-{shots}", (), _unread, kind="cloze", make=functools.partial(items, shots=shots),
        source="five of twelve letters and capitals at random, experiments/in_context",
    )
    for shots in SHOTS
]  # fmt: skip
