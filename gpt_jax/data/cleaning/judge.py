"""Steps of cleaning one document by itself, in a worker's process. Must not import jax."""

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from gpt_jax.data.cleaning.duplicates import Signature, digest, signature
from gpt_jax.data.cleaning.rules import RULES
from gpt_jax.data.documents import Document
from gpt_jax.data.personal import redact
from gpt_jax.hints import did_you_mean
from gpt_jax.storage.optional import require

DUPLICATES = ("exact", "near")
LANGUAGE_CHARACTERS = 10_000
"""Beginning of a text by which its language is told."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of cleaning, in the order in which they are taken."""

    repair: bool = False
    """Mend text that was decoded wrongly, by the library ftfy."""
    unicode: Literal["nfc", "nfkc", "none"] = "nfc"
    """Unicode normal form; control characters but line ends and tabs are taken out."""
    languages: tuple[str, ...] = ()
    """Two-letter codes of the languages that are kept, as py3langid tells them; none = all."""
    rules: tuple[str, ...] = ()
    """Names of `rules.RULES`, applied one after another."""
    personal: Literal["keep", "redact", "remove"] = "keep"
    """Personal data (`gpt_jax.data.personal`): kept, replaced by [email] and the like, or the
    document removed."""
    duplicates: tuple[str, ...] = ("exact",)
    """Copies and near copies of an earlier document, removed."""
    near_threshold: float = 0.8
    """Jaccard similarity from which on a document is a near copy."""

    def __post_init__(self) -> None:
        for name, given, known in (
            ("rules", self.rules, tuple(RULES)),
            ("duplicates", self.duplicates, DUPLICATES),
        ):
            for item in given:
                if item not in known:
                    hint = did_you_mean(item, known)
                    raise ValueError(f"--{name} {item}; allowed: {', '.join(known)}{hint}")
        if not 0 < self.near_threshold < 1:
            raise ValueError(f"--near-threshold {self.near_threshold:g}; allowed: between 0 and 1")

    def check(self) -> None:
        """Raises ValueError for a language that is not known, or a library that is missing."""
        if self.repair:
            require("ftfy", "clean")
        if "near" in self.duplicates:
            require("datasketch", "clean")
        if self.languages:
            known = sorted(code for code, _ in require("py3langid", "clean").rank(""))
            for language in self.languages:
                if language not in known:
                    raise ValueError(f"--languages {language}; allowed: {', '.join(known)}")


class Outcome(NamedTuple):
    """A document after its steps."""

    name: str
    text: str
    reason: str
    """Why it is removed; empty: it is kept."""
    changes: tuple[str, ...]
    """Steps that changed its text."""
    n_bytes: int
    """Size before, in UTF-8."""
    digest: bytes = b""
    signature: Signature | None = None


def judge_all(steps: Steps, documents: Sequence[Document]) -> list[Outcome]:
    """Every document after its steps, in order."""
    return [judge(steps, document) for document in documents]


def judge(steps: Steps, document: Document) -> Outcome:
    """A document after its steps; copies are found by whoever has the others."""
    text, changes = document.text, []
    n_bytes = len(text.encode())

    def changed(step: str, after: str) -> None:
        nonlocal text
        if after != text:
            text = after
            changes.append(step)

    def removed(reason: str) -> Outcome:
        return Outcome(document.name, document.text, reason, (), n_bytes)

    for step, change in _changes(steps).items():
        changed(step, change(text))
    if not text.strip():
        return removed("empty")
    if steps.languages and (found := language(text)) not in steps.languages:
        return removed(f"language {found}")
    for name in steps.rules:
        after, reason = RULES[name].judge(text)
        if reason:
            return removed(f"{name}: {reason}")
        changed(name, after)
    if steps.personal != "keep":
        redacted = redact(text)
        if steps.personal == "remove" and redacted != text:
            return removed("personal data")
        changed("personal data", redacted)
    near = signature(text) if "near" in steps.duplicates else None
    own = digest(text) if steps.duplicates else b""
    return Outcome(document.name, text, "", tuple(changes), n_bytes, own, near)


def _changes(steps: Steps) -> dict[str, Callable[[str], str]]:
    """Changes of the characters, by name."""
    found: dict[str, Callable[[str], str]] = {}
    if steps.repair:
        found["repair"] = require("ftfy", "clean").fix_text
    if steps.unicode != "none":
        found["unicode"] = functools.partial(_normalised, steps.unicode)
    return found


def _normalised(form: str, text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = unicodedata.normalize("NFKC" if form == "nfkc" else "NFC", text)
    return text.translate(CONTROLS)


CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160), 0xFEFF])
"""Control characters (C0 and C1) and the byte order mark, which are taken out."""


def language(text: str) -> str:
    """Code of the likeliest language of a text's beginning, of those that py3langid knows."""
    return str(require("py3langid", "clean").classify(text[:LANGUAGE_CHARACTERS])[0])
