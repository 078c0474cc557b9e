"""Values of command-line options, and the line that says what is wrong with one.

Imports nothing heavy: command lines start fast. Must not import jax.
"""

import argparse
import math
from collections.abc import Iterable


def pairs(option: str, text: str) -> dict[str, str]:
    """Parse NAME=VALUE[,NAME=VALUE...]; raises ValueError naming the option."""
    return collect(option, [part for part in text.split(",") if part.strip()])


def collect(option: str, given: Iterable[str]) -> dict[str, str]:
    """Parse texts NAME=VALUE; raises ValueError for a name that two of them give a value."""
    found: dict[str, str] = {}
    for name, value in (pair(option, text) for text in given):
        if found.setdefault(name, value) != value:
            raise ValueError(f"{option}: {name} is given twice, {found[name]} and {value}")
    return found


def pair(option: str, text: str) -> tuple[str, str]:
    """Parse NAME=VALUE; raises ValueError naming the option."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise ValueError(f"{option} {text}: expected NAME=VALUE")
    return name, value


def names(given: list[str]) -> list[str]:
    """Parse NAME[,NAME...], given once or several times."""
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


def number(option: str, text: str) -> float:
    """A finite number; raises ValueError naming the option."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{option}: '{text}' is not a number")
    return value


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not value > 0 or math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text}; allowed: numbers above 0")
    return value
