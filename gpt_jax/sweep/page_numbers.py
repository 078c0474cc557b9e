"""Numbers, tables and badges of a sweep's page, as HTML. Must not import jax."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TypeAlias

Markup: TypeAlias = str
"""HTML: what users control in it is escaped."""

MINUS, TIMES = "\N{MINUS SIGN}", "\u202f\N{MULTIPLICATION SIGN}\u202f"
PLAIN_RANGE = (1e-3, 1e5)
"""Sizes of number that are printed without a power of ten."""


def number(value: float | None, digits: int = 4, missing: str = "open") -> Markup:
    """A value to so many significant digits."""
    if value is None:
        return f'<span class="soft">{missing}</span>'
    low, high = PLAIN_RANGE
    if value == 0 or low <= abs(value) < high:
        text = f"{value:.{digits}g}"
        # From 10^digits on %g turns to exponents, which the range says are not wanted here.
        text = f"{value:,.0f}" if "e" in text else text
        return text.replace("-", MINUS)
    return scientific(value, digits)


def scientific(value: float, digits: int = 4) -> Markup:
    """1.23 times a power of ten; small whole numbers as they are."""
    if value == int(value) and abs(value) < PLAIN_RANGE[1]:
        return f"{int(value):,}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = str(int(exponent)).replace("-", MINUS)
    return f"{mantissa.replace('-', MINUS)}{TIMES}10<sup>{power}</sup>"


def interval(edges: Sequence[float | None]) -> Markup:
    """[low, high]; an edge that the runs do not give is open."""
    return f"[{number(edges[0])}, {number(edges[1])}]"


def badge(state: str, text: str = "") -> Markup:
    """A state with its colour."""
    return f'<span class="state {escape(state)}">{escape(text or state)}</span>'


def table(
    caption: str, header: Sequence[Markup], rows: Sequence[Sequence[Markup]], n_text: int = 1
) -> Markup:
    """A table whose first column names the rows; the first n_text columns are text."""
    kinds = ['class="text"' if i < n_text else "" for i in range(len(header))]
    head = "".join(
        f'<th scope="col" {kind}>{name}</th>' for kind, name in zip(kinds, header, strict=True)
    )
    lines = []
    for first, *rest in rows:
        cells = "".join(
            f"<td {kind}>{cell}</td>" for kind, cell in zip(kinds[1:], rest, strict=True)
        )
        lines.append(f'<tr><th scope="row" class="text">{first}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">\n'
        f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>\n"
    )


def facts_list(facts: Mapping[Markup, Markup]) -> Markup:
    """Names and what is said of them."""
    items = "\n".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts.items())
    return f'<dl class="facts">\n{items}\n</dl>'
