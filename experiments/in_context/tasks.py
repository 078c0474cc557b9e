"""A family of tasks that can only be learned from the context: a new substitution cipher each time.

A document draws a permutation of ten letters and shows words beside their encipherments, a pair a
line. What a letter stands for is told by the pairs before alone, so accuracy at a new word can rise
with the number of pairs shown, K, and no amount of training replaces them:

    gpt-jax eval runs/in_context/trials/TRIAL --tasks cipher-0,cipher-8 --task-file \
        experiments/in_context/tasks.py

Must not import jax.
"""

import functools

import numpy as np

from gpt_jax.evaluate.tasks import Item, Record, Task

LETTERS = "abcdefghij"
WORD = 3
"""Letters a word, drawn with replacement: two words in the same letters are rarely the same."""
PAIRS = 31
"""In a document, which then holds 248 bytes."""
SHOTS = (0, 1, 2, 4, 8, 16, 30)
N_ITEMS = 500


def document(random: np.random.Generator, pairs: int = PAIRS) -> list[tuple[str, str]]:
    """(word, encipherment) for random words under one random permutation of the letters."""
    cipher = random.permutation(len(LETTERS))
    words = random.integers(len(LETTERS), size=(pairs, WORD))
    return [
        ("".join(LETTERS[i] for i in word), "".join(LETTERS[cipher[i]] for i in word))
        for word in words
    ]


def text(pairs: list[tuple[str, str]]) -> str:
    """A pair a line."""
    return "".join(f"{word} {enciphered}\n" for word, enciphered in pairs)


def items(seed: int, shots: int) -> list[Item]:
    """Items whose context shows `shots` pairs; the answer must be right to the last letter."""
    random = np.random.default_rng([seed, shots, N_ITEMS])
    found = []
    for _ in range(N_ITEMS):
        *shown, (word, answer) = document(random, shots + 1)
        found.append(Item(text(shown) + word, (f" {answer}",)))
    return found


def best_accuracy(shots: int, n_trials: int = 100_000, seed: int = 0) -> float:
    """The expected accuracy of the best guesser: letters seen are known, others are guessed.

    A guess among the m letters that no pair has shown yet is right with probability 1/m. Monte
    Carlo; the standard error is below 0.5 / sqrt(n_trials).
    """
    random = np.random.default_rng(seed)
    seen = random.integers(len(LETTERS), size=(n_trials, max(1, shots * WORD)))
    query = random.integers(len(LETTERS), size=(n_trials, WORD))
    total = 0.0
    for shown, word in zip(seen, query, strict=True):
        known = set(shown.tolist()) if shots else set()
        new = len(set(word.tolist()) - known)
        hidden = len(LETTERS) - len(known)
        total += 1 / np.prod([hidden - k for k in range(new)], initial=1.0)
    return total / n_trials


def _unread(_: Record) -> list[Item]:
    raise AssertionError("items of the cipher are made from a seed, not read")


TASKS = [
    Task(
        f"cipher-{shots}", (), _unread, kind="cloze", make=functools.partial(items, shots=shots),
        source="a random permutation of ten letters, experiments/in_context",
    )
    for shots in SHOTS
]  # fmt: skip
