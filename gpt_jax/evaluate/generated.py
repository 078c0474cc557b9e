"""GPT-3's arithmetic and word-scrambling tasks, generated (Brown et al. 2020, section 3.9).

Must not import jax.
"""

import re
import string
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpt_jax.storage.checksum import seed_of

N_ITEMS = 2000
INSTRUCTION = "Please unscramble the letters into a word, and write that word:\n\n"


class Operation(NamedTuple):
    """Two operands below `limit`, an operator in words, and what it computes."""

    limit: int
    word: str
    compute: Callable[[int, int], int]


def _add(a: int, b: int) -> int:
    return a + b


def _subtract(a: int, b: int) -> int:
    return a - b


def _multiply(a: int, b: int) -> int:
    return a * b


DIGITS = {"two": 2, "three": 3, "four": 4, "five": 5}
TWO_OPERANDS = {
    **{f"{n}_digit_addition": Operation(10**k, "plus", _add) for n, k in DIGITS.items()},
    **{f"{n}_digit_subtraction": Operation(10**k, "minus", _subtract) for n, k in DIGITS.items()},
    "two_digit_multiplication": Operation(100, "times", _multiply),
}
SYMBOLS = {"+": _add, "-": _subtract, "*": _multiply}
ARITHMETIC = (*TWO_OPERANDS, "single_digit_three_ops")
"""Task names. Operands are uniform below the power of ten; a difference may be negative."""


def arithmetic(name: str, seed: int, n_items: int = N_ITEMS) -> list[dict[str, str]]:
    """Random items {context, completion} in the form of the paper's own files."""
    random = np.random.default_rng([seed, *name.encode()])
    items = []
    for _ in range(n_items):
        if name in TWO_OPERANDS:
            operation = TWO_OPERANDS[name]
            a, b = (int(x) for x in random.integers(operation.limit, size=2))
            items.append(_item(f"{a} {operation.word} {b}", operation.compute(a, b)))
        else:
            a, b, c = (int(x) for x in random.integers(10, size=3))
            first, second = random.choice(list(SYMBOLS), 2)
            expression = f"({a} {first} {b}) {second} {c}"
            items.append(_item(expression, SYMBOLS[second](SYMBOLS[first](a, b), c)))
    return items


def solve(context: str) -> int:
    """The answer to a question of one of these forms, worked out from its text.

    Raises ValueError for another form.
    """
    words = "|".join(sorted({o.word for o in TWO_OPERANDS.values()}))
    found = re.fullmatch(rf"\s*Q: What is (\d+) ({words}) (\d+)\?\s+A:", context)
    if found:
        by_word = {o.word: o.compute for o in TWO_OPERANDS.values()}
        return by_word[found[2]](int(found[1]), int(found[3]))
    found = re.fullmatch(r"\s*Q: What is \((\d) ([+*-]) (\d)\) ([+*-]) (\d)\?\s+A:", context)
    if not found:
        raise ValueError(f"not a question of these tasks: {context!r}")
    inner = SYMBOLS[found[2]](int(found[1]), int(found[3]))
    return SYMBOLS[found[4]](inner, int(found[5]))


def _item(expression: str, answer: int) -> dict[str, str]:
    return {"context": f"\n\nQ: What is {expression}?\n\nA:", "completion": f" {answer}"}


SCRAMBLES = ("cycle", "anagram1", "anagram2", "insertion", "reversed")
"""CL, A1, A2, RI and RW of the paper."""


def scramble(word: str, kind: str) -> str:
    """A word scrambled; which way is a function of the word alone.

    cycle: its letters rotated, by at least one. anagram1, anagram2: all letters shuffled but the
    first and last, or the first two and last two. insertion: a random punctuation mark or space
    after each letter but the last. Raises ValueError for another kind.
    """
    random = np.random.default_rng(seed_of(f"{kind} {word}"))
    if kind == "reversed":
        return word[::-1]
    if kind == "cycle":
        shift = int(random.integers(1, max(2, len(word))))
        return word[shift:] + word[:shift]
    if kind == "insertion":
        marks = random.choice(list(string.punctuation + " "), len(word))
        return "".join(w + m for w, m in zip(word, marks, strict=True))[:-1]
    if kind not in SCRAMBLES:
        raise ValueError(f"scramble = {kind}; allowed: {', '.join(SCRAMBLES)}")
    kept = 1 if kind == "anagram1" else 2
    inner = list(word[kept:-kept])
    return word[:kept] + "".join(random.permutation(inner)) + word[-kept:]
