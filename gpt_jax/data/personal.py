"""Personal data in a text, found by form (and checksum, where there is one): no names, no postal
addresses. Must not import jax.
"""

import functools
import re
from collections.abc import Callable


def _luhn(text: str) -> bool:
    """The checksum of payment cards (ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d * 2 - 9 * (d > 4) for d in digits[-2::-2]]
    return len(digits) >= 13 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    """The checksum of bank accounts (ISO 13616): 1 modulo 97."""
    plain = "".join(text.split()).upper()
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _octets(text: str) -> bool:
    return all(int(part) < 256 for part in text.split("."))


def _phone(text: str) -> bool:
    return 7 <= sum(c.isdigit() for c in text) <= 15  # ITU-T E.164


Check = Callable[[str], bool]
EMAIL = re.compile(
    r"[.%+-]++|\w[\w.%+-]*+(?:@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}\b)?", re.I
)
"""Whole runs of characters that a mailbox may have, with the domain where one follows: a run is
never looked at twice, whatever comes after it."""
PERSONAL: tuple[tuple[str, re.Pattern[str], Check], ...] = (
    ("account", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban),
    ("card", re.compile(r"\b\d(?:[ -]?\d){12,18}\b"), _luhn),
    ("address", re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), _octets),
    ("phone", re.compile(r"(?<![\w.])\+\d(?:[ .-]?\(?\d\)?){6,14}\b"), _phone),
    ("phone", re.compile(r"(?<![\w.-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"), _phone),
    ("number", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), lambda text: True),
)
"""(what it is called, its form, whether a match is one): IBANs, payment cards, IPv4 addresses,
telephone numbers (international, North American), US social security numbers. In this order, after
e-mail addresses: what one has replaced, those after it do not see.

Each form has a bounded length and one way to match it, so a text takes time in proportion to its
length."""


def redact(text: str) -> str:
    """The text with personal data replaced by [email], [card], ... (`EMAIL`, `PERSONAL`)."""
    text = EMAIL.sub(lambda run: "[email]" if "@" in run[0] else run[0], text)
    for name, form, is_one in PERSONAL:
        text = form.sub(functools.partial(_replaced, name, is_one), text)
    return text


def _replaced(name: str, is_one: Check, match: re.Match[str]) -> str:
    return f"[{name}]" if is_one(match[0]) else match[0]
