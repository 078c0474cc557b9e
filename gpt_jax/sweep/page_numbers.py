"""Numbers of a sweep's page, as HTML. Must not import jax."""

from collections.abc import Sequence

from markupsafe import Markup

MINUS, TIMES = "\N{MINUS SIGN}", "\u202f\N{MULTIPLICATION SIGN}\u202f"
PLAIN_RANGE = (1e-3, 1e5)
"""Sizes of number that are printed without a power of ten."""


def number(value: float | None, digits: int = 4, missing: str = "open") -> Markup:
    """A value to so many significant digits."""
    if value is None:
        return Markup('<span class="soft">{}</span>').format(missing)
    low, high = PLAIN_RANGE
    if value == 0 or low <= abs(value) < high:
        text = f"{value:.{digits}g}"
        # From 10^digits on %g turns to exponents, which the range says are not wanted here.
        text = f"{value:,.0f}" if "e" in text else text
        return Markup(text.replace("-", MINUS))
    return scientific(value, digits)


def scientific(value: float, digits: int = 4) -> Markup:
    """1.23 times a power of ten; small whole numbers as they are."""
    if value == int(value) and abs(value) < PLAIN_RANGE[1]:
        return Markup(f"{int(value):,}")
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = str(int(exponent)).replace("-", MINUS)
    return Markup(f"{mantissa.replace('-', MINUS)}{TIMES}10<sup>{power}</sup>")


def interval(edges: Sequence[float | None]) -> Markup:
    """[low, high]; an edge that the runs do not give is open."""
    return Markup("[{}, {}]").format(number(edges[0]), number(edges[1]))
