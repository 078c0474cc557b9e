"""Names of trials: what varies over the sweep, short, unique, and safe as file names.

    learning_rate=0.01,n_layers=4,flops=1e15

Must not import jax.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gpt_jax.storage.checksum import checksum

LONGEST = 100
"""Characters; longer names end in a hash instead."""
HASH_DIGITS = 8
EXACT = 17
DIGITS = (4, 6, 9, EXACT)
"""Significant digits tried in turn, until a key's values differ in print as they do in fact."""
UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")

_ABSENT = object()
"""The value of a key in a trial that does not set it."""


def name_trials(varied: Sequence[Mapping[str, Any]], default: str) -> list[str]:
    """A name for each of these mappings, all different unless the mappings are equal.

    Left out are keys with one value throughout and keys that follow from those already named
    (n_heads from d_model). A key is its last part (of optimizer.name: optimizer) unless two would
    look the same. Where nothing varies the name is `default`.
    """
    varying = _varying_keys(varied)
    keys = _telling_keys(varied, varying)
    # A trial that sets none of these keys, where others do, is named by what else it sets.
    used = [[k for k in keys if k in t] or [k for k in varying if k in t] for t in varied]
    short = _short_keys(list(dict.fromkeys(key for own in used for key in own)))
    texts = {key: _texts([v[key] for v in varied if key in v]) for key in short}
    names = []
    for trial, own in zip(varied, used, strict=True):
        parts = [f"{short[key]}={texts[key][_identity(trial[key])]}" for key in own]
        names.append(_fitting(safe(",".join(parts) or default)))
    return _apart(names, varied)


def safe(text: str) -> str:
    """`text` as a file name: other characters than letters, digits and ._=,+- become `_`."""
    return UNSAFE.sub("_", text).lstrip(".-") or "_"


def _varying_keys(varied: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys, in order of appearance, that have several values, or none in some trials."""
    keys = dict.fromkeys(key for trial in varied for key in trial)
    return [key for key in keys if len({_identity(t.get(key, _ABSENT)) for t in varied}) > 1]


def _telling_keys(varied: Sequence[Mapping[str, Any]], varying: Sequence[str]) -> list[str]:
    """The keys, in order, that tell trials apart which those before do not."""
    keys: list[str] = []
    told: list[tuple[Any, ...]] = [()] * len(varied)
    n_told = 1
    for key in varying:
        more = [
            (*before, _identity(trial.get(key, _ABSENT)))
            for before, trial in zip(told, varied, strict=True)
        ]
        if len(set(more)) > n_told:
            keys.append(key)
            told, n_told = more, len(set(more))
    return keys


def _identity(value: Any) -> Any:
    """Something hashable that is equal for equal values: 1 and 1.0 are, True and 1 are not."""
    if isinstance(value, list | tuple):
        return tuple(map(_identity, value))
    if isinstance(value, Mapping):
        return tuple((key, _identity(item)) for key, item in value.items())
    return (isinstance(value, bool), value)


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    last = {key: key.removesuffix(".name").rsplit(".", 1)[-1] for key in keys}
    uses = Counter(last.values())
    return {key: name if uses[name] == 1 else key for key, name in last.items()}


def _texts(values: Sequence[Any]) -> dict[Any, str]:
    """{identity of a value: its text}: with as few digits as keep different values apart."""
    distinct = {_identity(value): value for value in values}
    for digits in DIGITS:
        texts = {identity: show(value, digits) for identity, value in distinct.items()}
        if len(set(texts.values())) == len(texts):
            break
    return texts


def show(value: Any, digits: int) -> str:
    """A value in a name: 1e15, 0.003, true, none, dense+banded."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int):
        short = _exponent(f"{value:.{digits}g}")
        return short if len(short) < len(str(value)) and float(short) == value else str(value)
    if isinstance(value, float):
        return _exponent(repr(value) if digits == EXACT else f"{value:.{digits}g}")
    if isinstance(value, list | tuple):
        return "+".join(show(item, digits) for item in value)
    return str(value)


def _exponent(text: str) -> str:
    """1e+15 -> 1e15, 1e-05 -> 1e-5."""
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def _fitting(name: str) -> str:
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - HASH_DIGITS - 1].rstrip(',')}-{_hash(name)}"


def _apart(names: Sequence[str], varied: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names, with a hash of what varies where different trials would share one.

    Names that differ only in capitals are one on some file systems.
    """
    meanings: dict[str, set[str]] = {}
    texts = [repr(sorted((key, _identity(v)) for key, v in trial.items())) for trial in varied]
    for name, text in zip(names, texts, strict=True):
        meanings.setdefault(name.casefold(), set()).add(text)
    return [
        name if len(meanings[name.casefold()]) == 1 else with_hash(name, text)
        for name, text in zip(names, texts, strict=True)
    ]


def with_hash(name: str, text: str) -> str:
    """The name with a hash of the text at its end, no longer than LONGEST."""
    return f"{name[: LONGEST - HASH_DIGITS - 1]}-{_hash(text)}"


def _hash(text: str) -> str:
    return checksum(text)[:HASH_DIGITS]
