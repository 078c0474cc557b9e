"""Text in CSV files that a spreadsheet must not take for a formula. Must not import jax.

A cell that begins with one of = + - @ (or their wide forms), or with white space or apostrophes
before one, is written with an apostrophe before it; numbers stay as they are. Our readers take the
apostrophe away again, so every value comes back.
"""

import re
from typing import Any

_FORMULA = re.compile(r"['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|['\s]*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def protect(value: Any) -> Any:
    """A cell as it is written; anything but text as it is."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def restore(text: str) -> str:
    """The value of a cell that `protect` has written; of any other cell, the cell."""
    if text.startswith("'") and _FORMULA.match(text[1:]) and not _NUMBER.fullmatch(text[1:]):
        return text[1:]
    return text
