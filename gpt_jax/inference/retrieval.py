"""Passages of a folder of texts that bear on a question, put in front of it. Must not import jax.

BM25 (Robertson and Zaragoza 2009) by the library bm25s, of lower-cased words of two characters or
more without English stop words.
"""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gpt_jax.storage.optional import require

SUFFIXES = (".txt", ".md")
PASSAGE_WORDS = 100
"""Default for the maximum number of words in a passage."""
SEPARATOR = "\n\n"
"""Between passages, and before the question: a blank line, as between paragraphs of a text."""


class Passage(NamedTuple):
    """A part of a file."""

    file: str
    """Its path in the folder."""
    text: str
    score: float = 0.0
    """BM25 of a question; higher is nearer."""


def read_passages(folder: Path, n_words: int = PASSAGE_WORDS) -> list[Passage]:
    """The passages of all .txt and .md files below a folder, by path and then as they stand there.

    Raises ValueError for a folder that is not there or holds no such text, and for a file that is
    not in UTF-8.
    """
    if not folder.is_dir():
        raise ValueError(f"--retrieve {folder}: no such folder")
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file()):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"--retrieve {folder}: {path} is not a text in UTF-8") from None
        name = str(path.relative_to(folder))
        found += [Passage(name, passage) for passage in cut(text, n_words)]
    if not found:
        raise ValueError(f"--retrieve {folder}: no text in it; allowed: .txt and .md files")
    return found


def cut(text: str, n_words: int) -> list[str]:
    """Passages of at most n_words words: paragraphs joined while they fit; one that is longer is
    cut between words."""
    passages: list[list[str]] = []
    n_last = 0
    for paragraph in filter(None, map(str.strip, re.split(r"\n\s*\n", text))):
        words = paragraph.split()
        if len(words) > n_words:
            parts = [words[i : i + n_words] for i in range(0, len(words), n_words)]
            passages += [[" ".join(part)] for part in parts]
            n_last = n_words  # nothing is joined to a paragraph that was cut
        elif passages and n_last + len(words) <= n_words:
            passages[-1].append(paragraph)
            n_last += len(words)
        else:
            passages.append([paragraph])
            n_last = len(words)
    return [SEPARATOR.join(passage) for passage in passages]


class Index:
    """Passages that questions are asked of. Raises ValueError where bm25s is not installed."""

    def __init__(self, passages: Sequence[Passage]):
        bm25s = require("bm25s", "retrieve")
        self.passages = passages
        self._tokenize = functools.partial(bm25s.tokenize, return_ids=False, show_progress=False)
        tokenized = self._tokenize([passage.text for passage in passages])
        self._known = {word for words in tokenized for word in words}
        self._scores = bm25s.BM25()
        if self._known:
            self._scores.index(tokenized, show_progress=False)

    def best(self, question: str, n: int) -> list[Passage]:
        """The n passages of highest score that share a word with the question, best first; of
        equals the first."""
        asked = [word for word in self._tokenize([question])[0] if word in self._known]
        if not asked:
            return []
        scores = self._scores.get_scores(asked)
        order = sorted(range(len(self.passages)), key=lambda i: (-scores[i], i))
        found = [i for i in order[:n] if scores[i] > 0]
        return [self.passages[i]._replace(score=float(scores[i])) for i in found]


def with_passages(
    passages: Sequence[Passage],
    question: str,
    count_tokens: Callable[[str], int],
    budget: int,
) -> tuple[str, list[Passage]]:
    """(prompt, passages in it): as many, best first, as leave the prompt at `budget` tokens or
    below; one that does not fit is passed over. The best stands last, next to the question."""
    used: list[Passage] = []
    for passage in passages:
        if count_tokens(_prompt([*used, passage], question)) <= budget:
            used.append(passage)
    return _prompt(used, question), used


def _prompt(passages: Sequence[Passage], question: str) -> str:
    return SEPARATOR.join([*(p.text for p in reversed(passages)), question])
