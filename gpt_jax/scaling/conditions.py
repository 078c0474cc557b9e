"""Conditions on the rows of a table: `n_params < 1e9 and corpus == "c4"`.

Must not import jax.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gpt_jax.scaling.expressions import (
    Array,
    check_condition,
    holds,
    names_of,
    parse,
    unknown_name,
)

ALIASES = {"N": "n_params", "D": "n_tokens", "C": "flops", "L": "loss", "U": "unique_tokens"}
"""Letters that stand for columns unless something else has their name."""


def columns_of(
    cells: Mapping[str, Sequence[str]], quantities: Mapping[str, Array]
) -> dict[str, Array]:
    """{name: (R) numbers, or text} by the file's names, ours, and the usual letters."""
    known = {name: _column(texts) for name, texts in cells.items()}
    known |= quantities
    for letter, name in ALIASES.items():
        if letter not in known and name in known:
            known[letter] = known[name]
    return known


def _column(texts: Sequence[str]) -> Array:
    numbers = [_number(text) for text in texts]
    if any(number is None for number in numbers):
        return np.array([text.strip() for text in texts])
    return np.array(numbers, float)


def _number(text: str) -> float | None:
    """None: a text; an empty cell is no number of a column of numbers."""
    try:
        return float(text) if text.strip() else math.nan
    except ValueError:
        return None


def where_it_holds(condition: str, columns: Mapping[str, Array]) -> Array:
    """(R) bool; raises ValueError for what is no condition, or for an unknown column."""
    option = f"--where '{condition}'"
    tree = parse(condition, "--where")
    check_condition(tree, option)
    for name in names_of(tree):
        if name not in columns:
            raise ValueError(f"{option}: no column {name}; {unknown_name(name, list(columns))}")
    return holds(tree, columns)
