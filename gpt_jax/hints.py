"""Parts of messages: the nearest known name, a number with its noun. Must not import jax."""

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names most like the given one, the nearest first; at most `most`, maybe none.

    cutoff: least similarity from 0 to 1, as `difflib.SequenceMatcher.ratio` measures it.
    """
    import difflib

    return difflib.get_close_matches(name, list(known), most, cutoff)


def did_you_mean(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """The end of a message, `; did you mean 'x'?`; empty where no known name is near."""
    near = nearest(name, known, most, cutoff)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def counted(n: int, noun: str, nouns: str = "") -> str:
    """A number with its noun: '1 trial', '1,200 trials'; nouns: the plural, if not noun + s."""
    return f"{n:,} {noun if n == 1 else nouns or noun + 's'}"
