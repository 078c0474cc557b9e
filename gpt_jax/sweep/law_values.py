"""Settings of trials by a fitted law: the learning rate, batch or weight decay for each (N, D).

    product(ladder.by_depth([2, 4, 8]), tokens_per_param_budgets([20]),
            by_law("optimizer.learning_rate", "laws.json"),
            by_law("train.batch_sequences", "laws.json", multiple=8))

The law is what `gpt-jax fit hyperparameters RUNS.csv --json laws.json` writes. Must not import jax.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from gpt_jax.config import Config
from gpt_jax.scaling.ladder import SizeConvention, count
from gpt_jax.storage.checksum import checksum
from gpt_jax.storage.json_files import Damaged, parse_object
from gpt_jax.sweep.grid import Changes, Grid

PREFIX = "law."
"""Keys of a trial's change that hold a law: `law.optimizer.learning_rate`."""
KEYS = {
    "optimizer.learning_rate": "learning_rate",
    "train.batch_sequences": "batch_tokens",
    "optimizer.weight_decay": "weight_decay",
}
"""{key of the config: hyperparameter of the law}"""
WAYS = ("bowls", "surface")
BEYOND = 2.0
"""Factor beyond the runs of a law up to which it is applied without being told."""
DIGEST = 12
"""Hex digits of the SHA-256 of a laws file that are recorded."""
LETTERS = {"n_params": "N", "n_tokens": "D", "tokens_per_param": "(D/N)"}


@dataclasses.dataclass(frozen=True)
class Law:
    """A power law of the best value of one setting, and the runs that it was fitted to."""

    key: str
    """Key of the config that it sets"""
    way: str
    """A member of WAYS"""
    scale: float
    exponents: tuple[tuple[str, float], ...]
    """(variable, exponent)"""
    ranges: tuple[tuple[str, float, float], ...]
    """(variable, lowest, highest) of the runs"""
    beyond: float
    multiple: int
    """A batch is rounded to whole multiples of so many sequences."""
    convention: SizeConvention
    """N of the law"""
    file: str
    digest: str

    def __str__(self) -> str:
        """Text that sweep.json and runs.csv record."""
        return f"{self.file}:{self.digest}"

    def apply(self, config: Config, n_tokens: float) -> "Applied":
        """The value for a config's size and n_tokens training tokens.

        Raises ValueError where that lies further beyond the law's runs than allowed.
        """
        n = float(count(config.model, self.convention))
        at = {"n_params": n, "n_tokens": n_tokens, "tokens_per_param": n_tokens / n}
        factor, variable = max(
            (max(at[name] / high, low / at[name], 1.0), name) for name, low, high in self.ranges
        )
        if factor > self.beyond:
            low, high = next(edges for name, *edges in self.ranges if name == variable)
            raise ValueError(
                f"{self.key} by {self.file}: {LETTERS[variable]} = {at[variable]:.3g} is "
                f"{factor:.3g} times beyond its runs ({low:.3g} to {high:.3g}); allowed: "
                f"{self.beyond:g}, set beyond= of by_law"
            )
        exact = self.scale * math.prod(at[name] ** power for name, power in self.exponents)
        value: float = exact
        if self.key == "train.batch_sequences":
            step = self.multiple
            value = step * max(1, round(exact / config.model.seq_len / step))
            exact /= config.model.seq_len
        return Applied(self, value, exact, factor, variable if factor > 1 else "")

    @property
    def formula(self) -> str:
        """0.546 D^0.569"""
        powers = (f"{LETTERS[name]}^{power:.3f}" for name, power in self.exponents)
        return " ".join([f"{self.scale:.3g}", *powers])


@dataclasses.dataclass(frozen=True)
class Applied:
    """The value that a law gave a trial."""

    law: Law
    value: float
    exact: float
    """Before a batch is rounded to whole sequences."""
    factor: float
    """Factor beyond the law's runs; 1 within them."""
    variable: str
    """The variable that is furthest beyond them; empty within them."""


def by_law(
    key: str,
    laws: str | Path,
    *,
    way: str = "bowls",
    beyond: float = BEYOND,
    multiple: int = 1,
    params: SizeConvention | None = None,
) -> Grid:
    """A grid of one change: the config's `key` follows a fitted law of each trial's N and D.

    Args:
      key: optimizer.learning_rate, train.batch_sequences or optimizer.weight_decay.
      laws: file written by `gpt-jax fit hyperparameters --json`; a relative path is taken from the
        working directory.
      way: `bowls` (a minimum in each cell, a power law through them) or `surface` (all cells at
        once).
      beyond: factor beyond the N and D of the law's runs up to which it is applied; trials further
        away are infeasible.
      multiple: round a batch to multiples of so many sequences (a batch law is of tokens).
      params: how the law counts N; none = as its column is called (n_params_non_embedding, ...),
        n_params where that says nothing.

    D is the trial's train.tokens, before its rounding to whole batches. Raises ValueError for an
    unknown key or way, and for a file that holds no such law.
    """
    if key not in KEYS:
        raise ValueError(f"by_law: no law is of {key}; allowed: {', '.join(KEYS)}")
    if way not in WAYS:
        raise ValueError(f"by_law: way = {way}; allowed: {', '.join(WAYS)}")
    if not beyond >= 1:
        raise ValueError(f"by_law: beyond = {beyond}; allowed: a factor of 1 or more")
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise ValueError(f"by_law: multiple = {multiple!r}; allowed: a whole number from 1 on")
    if multiple > 1 and key != "train.batch_sequences":
        raise ValueError(f"by_law: multiple is of train.batch_sequences, not of {key}")
    path = Path(laws)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"by_law: {path}: {error.strerror}; relative paths are taken from the working "
            f"directory, Path(__file__).parent / NAME is a file beside the sweep"
        ) from None
    document = parse_object(text, str(path), "law", "cells", *WAYS)
    digest = checksum(text)[:DIGEST]
    scale, exponents, ranges = _read(document, path, KEYS[key], way)
    convention = params or _convention(document)
    if convention not in get_args(SizeConvention):
        allowed = ", ".join(get_args(SizeConvention))
        raise ValueError(f"by_law: params = {convention}; allowed: {allowed}")
    law = Law(
        key, way, scale, exponents, ranges, float(beyond), multiple, convention, path.name, digest
    )
    return [{PREFIX + key: law}]


def _read(
    document: Mapping[str, Any], path: Path, hyper: str, way: str
) -> tuple[float, tuple[tuple[str, float], ...], tuple[tuple[str, float, float], ...]]:
    """Scale, exponents and the ranges of the runs' variables."""
    from gpt_jax.scaling.bowls import VARIABLES

    laws = document[way]
    if hyper not in laws:
        known = ", ".join(laws) or "none"
        raise ValueError(f"by_law: {path} has no law of {hyper} by {way}; it has {known}")
    try:
        scale = float(laws[hyper]["scale"])
        exponents = tuple((v, float(laws[hyper]["exponents"][v])) for v in VARIABLES[hyper])
        cells = [c for c in document["cells"] if way == "surface" or not c["problem"]]
        places = [(float(c["n_params"]), float(c["n_tokens"])) for c in cells]
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is damaged: its law of {hyper} lacks {error}") from None
    found = {
        "n_params": [n for n, _ in places],
        "n_tokens": [d for _, d in places],
        "tokens_per_param": [d / n for n, d in places],
    }
    ranges = tuple((v, min(found[v]), max(found[v])) for v, _ in exponents)
    return scale, exponents, ranges


def _convention(document: Mapping[str, Any]) -> SizeConvention:
    column = document.get("columns", {}).get("n_params", "n_params")
    return column if column in get_args(SizeConvention) else "n_params"


def split_laws(changes: Changes) -> tuple[dict[str, Any], dict[str, Law]]:
    """A change without its laws, and the laws by the keys that they set.

    Raises ValueError where both set one key, or where a key is of no law.
    """
    plain, laws = {}, {}
    for key, value in changes.items():
        if not key.startswith(PREFIX):
            plain[key] = value
        elif isinstance(value, Law):
            laws[value.key] = value
        else:
            raise ValueError(f"{key} = {value!r}; keys that begin with {PREFIX} are by_law's")
    for key in laws:
        if key in plain:
            raise ValueError(f"{key} is set both by a law and to {plain[key]!r}; keep one")
    return plain, laws


def recorded(changes: Changes) -> dict[str, Any]:
    """A change as sweep.json holds it: of a law its file and digest."""
    return {k: str(v) if isinstance(v, Law) else v for k, v in changes.items()}
