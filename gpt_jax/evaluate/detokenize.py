"""De-tokenizers: text as people write it, from the tokenised form in which benchmarks come.

GPT-2's paper (section 3.1) evaluates on text from which tokenisation artifacts are removed by
invertible rules, so that the probability of the data set stays well defined; it does not print the
rules. Each line here is rewritten only if the inverse gives it back to the letter, and is kept as
it is otherwise: what differs from the data set is never lost. Must not import jax.
"""

import dataclasses
import re
from collections.abc import Callable

Rewrite = Callable[[str], str]

_ABBREVIATION = re.compile(r"(?:\b[A-Za-z]|\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|No|vs|Lt|Col|Gen|Capt|Sgt))$")
_CLITICS = r"(?:'s|'t|'re|'ve|'ll|'d|'m|n't)"


def _join(text: str) -> str:
    """Undoes the tokenization that both rule sets share: punctuation, brackets, clitics, quotes."""
    text = re.sub(r" ([,;:!?%)\]]|\.{3})(?= |$)", r"\1", text)
    text = re.sub(r"(?<=[^ .]) \.(?= |$)", ".", text)
    text = re.sub(r"(?<=[(\[$£]) ", "", text)
    text = re.sub(rf" ({_CLITICS})(?= |$|[,;:.!?)])", r"\1", text)
    return _close_quotes(text)


def _split(text: str) -> str:
    text = _open_quotes(text)
    text = re.sub(rf"(?<=[\w>])({_CLITICS})(?= |$|[,;:.!?)])", r" \1", text)
    text = re.sub(r"(?:^|(?<=[ (\[$£]))([(\[$£])(?=[^ ])", r"\1 ", text)
    text = re.sub(r"(?<=[^ ])([,;:!?%)\]]|\.{3})(?= |$|[,;:.!?)\]])", r" \1", text)
    return re.sub(r"\S+\.(?= |$)", _split_stop, text)


def _split_stop(match: re.Match[str]) -> str:
    """A full stop is a token of its own, except after an abbreviation."""
    word = match[0][:-1]
    if _ABBREVIATION.search(word) or word.endswith("."):
        return match[0]
    return f"{word} ."


def _close_quotes(text: str) -> str:
    """`say " this " now` -> `say "this" now`: of the quotes of a line every second one closes."""
    parts = re.split(r'(?:(?<= )|^)"(?= |$|[,;:.!?])', text)
    for i in range(1, len(parts)):
        if i % 2:
            parts[i] = parts[i].removeprefix(" ")
            if i + 1 < len(parts):
                parts[i] = parts[i].removesuffix(" ")
    return '"'.join(parts)


def _open_quotes(text: str) -> str:
    parts = text.split('"')
    for i in range(1, len(parts), 2):
        parts[i] = " " + parts[i] + (" " if i + 1 < len(parts) else "")
    return '"'.join(parts)


def _join_wikitext(line: str) -> str:
    line = re.sub(r" @([-,.])@ ", r"\1", line)
    # The file's own spaces at the ends of a line stay where they are.
    return re.sub(r"^( ?)(.*?)( ?)$", lambda m: m[1] + _join(m[2]) + m[3], line, flags=re.S)


def _split_wikitext(line: str) -> str:
    line = re.sub(r"^( ?)(.*?)( ?)$", lambda m: m[1] + _split(m[2]) + m[3], line, flags=re.S)
    line = line.replace(" n't", "n 't")
    line = re.sub(r"(?<=[\d>])([,.])(?=[\d<])", r" @\1@ ", line)
    return re.sub(r"(?<=[^ -])-(?=[^ -])", " @-@ ", line)


BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lcb-": "{", "-rcb-": "}", "-LRB-": "(", "-RRB-": ")"}


def _join_ptb(line: str) -> str:
    for token, mark in BRACKETS.items():
        line = re.sub(rf"(?:(?<= )|^){token}(?= |$)", mark, line)
    line = re.sub(r"(?:(?<= )|^)(?:``|'')(?= |$)", '"', line)
    return _join(line)


def _split_ptb(line: str) -> str:
    line = _split(line)
    for token, mark in list(BRACKETS.items())[:4]:
        line = re.sub(rf"(?:(?<= )|^){re.escape(mark)}(?= |$)", token, line)
    quotes = iter(range(line.count('"')))
    return re.sub('"', lambda _: "''" if next(quotes) % 2 else "``", line)


def detokenize_ptb(text: str) -> str:
    """Text in Penn Treebank's style of tokens (also CBT's), closed up; may not be invertible."""
    return _join_ptb(text)


def _same(line: str) -> str:
    return line


@dataclasses.dataclass(frozen=True)
class Detokenizer:
    """A pair of rewrites of a line, inverse to one another wherever they are used."""

    join: Rewrite
    split: Rewrite
    ends_lines: bool
    """Whether each line's end counts as a word, as the <eos> of these language-model benchmarks."""
    note: str

    def apply(self, line: str) -> str:
        """The line as people write it, or as it is where that could not be undone."""
        joined = self.join(line)
        return joined if self.split(joined) == line else line

    def undo(self, line: str) -> str:
        """The line of the data set that `apply` made this one from."""
        tokens = self.split(line)
        return tokens if self.apply(tokens) == line else line


@dataclasses.dataclass(frozen=True)
class Text:
    """A text to score, and the units that its data set counts."""

    text: str
    n_words: int
    """Words of the data set's text before detokenization: tokens between white space, and line ends
    where the data set counts them."""
    n_bytes: int
    """UTF-8 bytes of the data set as it is."""
    n_characters: int
    n_lines: int
    n_kept: int
    """Lines that hold tokens to join but are left as they are."""


DETOKENIZERS = {
    "none": Detokenizer(_same, _same, False, "text as it is; words between white space"),
    "wikitext": Detokenizer(
        _join_wikitext, _split_wikitext, True, "WikiText-2 and -103; words and one <eos> a line"
    ),
    "ptb": Detokenizer(_join_ptb, _split_ptb, True, "Penn Treebank; words and one <eos> a line"),
    "1bw": Detokenizer(_join_ptb, _split_ptb, True, "One Billion Word; words and one <eos> a line"),
    "text8": Detokenizer(_same, _same, False, "text8 and enwik8: bytes and characters as they are"),
}


def prepare(text: str, name: str) -> Text:
    """A data set's text de-tokenised, with its counts. Raises ValueError for an unknown name."""
    if name not in DETOKENIZERS:
        raise ValueError(f"--detokenize {name}; allowed: {', '.join(DETOKENIZERS)}")
    rules = DETOKENIZERS[name]
    lines = text.split("\n")
    joined = [rules.apply(line) for line in lines]
    for line, old in zip(joined, lines, strict=True):
        if rules.undo(line) != old:  # two lines of the data set would become the same
            raise ValueError(f"the rules of --detokenize {name} cannot be undone for: {old[:80]!r}")
    pairs = zip(lines, joined, strict=True)
    n_kept = sum(a == b and rules.join(a) != a for a, b in pairs)
    n_ends = text.count("\n") if rules.ends_lines else 0
    return Text(
        text="\n".join(joined),
        n_words=len(text.split()) + n_ends,
        n_bytes=len(text.encode()),
        n_characters=len(text),
        n_lines=len(lines),
        n_kept=n_kept,
    )
