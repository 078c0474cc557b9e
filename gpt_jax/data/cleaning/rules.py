"""Rules that keep or remove a document by its form: Gopher's and C4's. Must not import jax.

A word is what white space separates; a line is not empty. Where the papers leave a count open, the
docstring says how it is taken here.
"""

import collections
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Judged(NamedTuple):
    """A document after a rule."""

    text: str
    """The text that is left; lines may have been taken out."""
    reason: str = ""
    """Why it is removed; empty: it is kept."""


@dataclass(frozen=True)
class Rule:
    """A named set of criteria."""

    name: str
    summary: str
    source: str
    judge: Callable[[str], Judged]


STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BULLETS = ("•", "‣", "▶", "◀", "◦", "■", "□", "▪", "▫", "\N{EN DASH}", "-", "*")
ELLIPSES = ("...", "…")
FEWEST_WORDS, MOST_WORDS = 50, 100_000
SHORTEST_MEAN, LONGEST_MEAN = 3, 10
MOST_SYMBOLS = 0.1
MOST_BULLETS = 0.9
MOST_ELLIPSES = 0.3
FEWEST_ALPHABETIC = 0.8
FEWEST_STOP_WORDS = 2


def gopher(text: str) -> Judged:
    """Quality criteria of MassiveText (Rae et al. 2021, arXiv:2112.11446, A.1.1).

    The stop words are English: for other languages leave this rule out. Two stop words are two
    occurrences of any of them.
    """
    return Judged(text, _gopher(text))


def _gopher(text: str) -> str:
    words, lines = text.split(), _lines(text)
    n = len(words)
    if n < FEWEST_WORDS:
        return f"fewer than {FEWEST_WORDS} words"
    if n > MOST_WORDS:
        return f"more than {MOST_WORDS:,} words"
    if not SHORTEST_MEAN <= sum(map(len, words)) / n <= LONGEST_MEAN:
        return f"mean word length outside {SHORTEST_MEAN} to {LONGEST_MEAN}"
    if text.count("#") / n > MOST_SYMBOLS:
        return f"more than {MOST_SYMBOLS} hashes a word"
    if sum(map(text.count, ELLIPSES)) / n > MOST_SYMBOLS:
        return f"more than {MOST_SYMBOLS} ellipses a word"
    if _share(line.startswith(BULLETS) for line in lines) > MOST_BULLETS:
        return f"more than {MOST_BULLETS:.0%} of lines begin with a bullet"
    if _share(line.endswith(ELLIPSES) for line in lines) > MOST_ELLIPSES:
        return f"more than {MOST_ELLIPSES:.0%} of lines end with an ellipsis"
    if _share(any(c.isalpha() for c in word) for word in words) < FEWEST_ALPHABETIC:
        return f"fewer than {FEWEST_ALPHABETIC:.0%} of words with a letter"
    if sum(word.lower() in STOP_WORDS for word in words) < FEWEST_STOP_WORDS:
        return f"fewer than {FEWEST_STOP_WORDS} stop words"
    return ""


MOST_REPEATED: Mapping[str, float] = {
    "lines": 0.30,
    "paragraphs": 0.30,
    "characters of lines": 0.20,
    "characters of paragraphs": 0.20,
}
MOST_OF_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
"""Length of an n-gram -> largest share of the characters that its most frequent one may have."""
MOST_OF_COPIES = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Length of an n-gram -> largest share of the characters in n-grams that occurred before."""


def gopher_repetition(text: str) -> Judged:
    """Repetition criteria of MassiveText (Rae et al. 2021, table A1).

    A line, paragraph or n-gram is repeated where it occurred before in the document: a first
    occurrence is not counted. All occurrences of the most frequent n-gram are, if there are two or
    more. Characters are those of words, over those of all words, none of them twice.
    """
    return Judged(text, _repeated(text))


def _repeated(text: str) -> str:
    units = {"lines": _lines(text), "paragraphs": _paragraphs(text)}
    for unit, parts in units.items():
        copies, characters = _copies(parts)
        for kind, share in ((unit, copies), (f"characters of {unit}", characters)):
            if share > MOST_REPEATED[kind]:
                return f"more than {MOST_REPEATED[kind]:.0%} of {kind} repeated"
    words = text.split()
    sizes = [len(word) for word in words]
    total = sum(sizes)
    for n, most in MOST_OF_TOP.items():
        if _top(words, n) > most * total:
            return f"more than {most:.0%} of characters in one {n}-gram"
    for n, most in MOST_OF_COPIES.items():
        if _in_copies(words, sizes, n) > most * total:
            return f"more than {most:.0%} of characters in repeated {n}-grams"
    return ""


ENDS = (".", "?", "!", '"', "”")
FEWEST_SENTENCES = 5
FEWEST_WORDS_OF_LINE = 3
LONGEST_WORD = 1000
POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
CITATION = re.compile(r"\[(?:\d+|edit|citation needed)\]")
SENTENCE_END = re.compile(r"[.?!]+[\"”')\]]*(?=\s|$)")


def c4(text: str) -> Judged:
    """Lines and pages as C4 kept them (Raffel et al. 2020, JMLR 21(140), section 2.2; the numbers
    are those of its released code: 5 sentences a page, 3 words a line).

    Its list of obscene words and its removal of repeated spans of three sentences are left out.
    """
    kept = []
    for line in _lines(CITATION.sub("", text)):
        words, lowered = line.split(), line.lower()
        if not line.endswith(ENDS) or line.endswith(ELLIPSES):
            continue
        if len(words) < FEWEST_WORDS_OF_LINE or max(map(len, words)) > LONGEST_WORD:
            continue
        if "javascript" in lowered or any(policy in lowered for policy in POLICIES):
            continue
        if "lorem ipsum" in lowered:
            return Judged(text, "lorem ipsum")
        if "{" in line:
            return Judged(text, "a curly bracket")
        kept.append(line)
    left = "\n".join(kept)
    if len(SENTENCE_END.findall(left)) < FEWEST_SENTENCES:
        return Judged(text, f"fewer than {FEWEST_SENTENCES} sentences in lines that C4 keeps")
    return Judged(left)


RULES = {
    rule.name: rule
    for rule in (
        Rule(
            "gopher", "length, word length, symbols, stop words", "Rae et al. 2021, A.1.1", gopher
        ),
        Rule(
            "gopher-repetition",
            "repeated lines, paragraphs and n-grams",
            "Rae et al. 2021, table A1",
            gopher_repetition,
        ),
        Rule("c4", "lines that end as sentences do; no code", "Raffel et al. 2020, 2.2", c4),
    )
}


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]


def _paragraphs(text: str) -> list[str]:
    return [part for part in map(str.strip, re.split(r"\n\s*\n", text)) if part]


def _share(found: Iterable[bool]) -> float:
    """Share of true ones; 0 of none."""
    listed = list(found)
    return sum(listed) / len(listed) if listed else 0.0


def _copies(parts: Sequence[str]) -> tuple[float, float]:
    """Share of the parts that occurred before, and of their characters."""
    counts = collections.Counter(parts)
    total = sum(map(len, parts))
    copies = sum(n - 1 for n in counts.values())
    characters = sum((n - 1) * len(part) for part, n in counts.items())
    return (copies / len(parts), characters / total) if total else (0.0, 0.0)


def _top(words: Sequence[str], n: int) -> int:
    """Characters in the most frequent n-gram that occurs more than once; 0 where none does."""
    starts = collections.Counter(zip(*(words[i:] for i in range(n)), strict=False))
    if not starts:
        return 0
    most = max(starts.values())
    if most == 1:
        return 0
    return max(sum(map(len, gram)) * k for gram, k in starts.items() if k == most)


def _in_copies(words: Sequence[str], sizes: Sequence[int], n: int) -> int:
    """Characters of words that belong to an n-gram which occurred before, each word once."""
    seen: set[tuple[str, ...]] = set()
    found, counted_to = 0, 0
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            found += sum(sizes[max(i, counted_to) : i + n])
            counted_to = i + n
        seen.add(gram)
    return found
