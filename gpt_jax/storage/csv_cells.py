"""CSV files of ours, in which no spreadsheet takes a text for a formula. Must not import jax.

A cell that begins with one of = + - @ (or their wide forms), or with white space or apostrophes
before one, is written with an apostrophe in front; numbers stay as they are. `restore` takes the
apostrophe away again, so every value comes back.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

_FORMULA = re.compile(r"['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def as_csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table as CSV text; None is an empty cell."""
    file = io.StringIO()
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (header, *rows):
        cells = ["" if value is None else protect(value) for value in row]
        # Python before 3.13 leaves a lone carriage return unquoted, and readers end the line there.
        has_return = any(isinstance(value, str) and "\r" in value for value in cells)
        (quoted if has_return else plain).writerow(cells)
    return file.getvalue()


def protect(value: Any) -> Any:
    """A cell as it is written; anything but text as it is."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def restore(text: str) -> str:
    """The value of a cell that `protect` has written; of any other cell, the cell."""
    return text[1:] if text.startswith("'") and _is_formula(text[1:]) else text


def _is_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)
