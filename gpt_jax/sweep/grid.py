"""Grids: iterables of changes to a config, and how to combine them.

    product(
        values("model.n_layers", [2, 4, 8]),
        prefix("optimizer", product(values("learning_rate", [1e-3, 3e-3]), values("b2", [0.95]))),
        seeds(2),
    )

A change is {dotted key: value}, as `gpt_jax.config.overrides.override` takes it; keys that begin
with "budget." are training budgets (`gpt_jax.sweep.budget`). What the functions here return is lazy
and can be read again and again; the order is the one written, the last factor varying fastest. Must
not import jax.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpt_jax.storage.checksum import checksum

Changes = Mapping[str, Any]
"""{dotted key: value}."""

Grid = Iterable[Changes]


class _Lazy:
    """Values of a generator function, from the start at each iteration."""

    def __init__(self, make: Callable[[], Iterator[Changes]]):
        self._make = make

    def __iter__(self) -> Iterator[Changes]:
        return self._make()


def values(key: str, choices: Iterable[Any]) -> Grid:
    """One change for each value of a key."""
    return [{key: choice} for choice in choices]


def seeds(n: int) -> Grid:
    """The seeds 0 to n - 1."""
    return values("seed", range(n))


def product(*grids: Grid) -> Grid:
    """Every combination of one change from each grid.

    Raises ValueError, when iterated over, if two grids give one key different values.
    """
    parts = [_rereadable(grid) for grid in grids]
    return _Lazy(lambda: (_merge(changes) for changes in itertools.product(*parts)))


def chain(*grids: Grid) -> Grid:
    """The changes of each grid, one grid after the other."""
    parts = [_rereadable(grid) for grid in grids]
    return _Lazy(lambda: itertools.chain.from_iterable(parts))


def zipped(*grids: Grid) -> Grid:
    """The first changes of all grids together, then the second ones, and so on.

    Raises ValueError if the grids differ in length, or give one key different values.
    """
    parts = [list(grid) for grid in grids]
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise ValueError(f"zipped grids have {', '.join(map(str, lengths))} changes; need equal")
    return [_merge(changes) for changes in zip(*parts, strict=True)]


def prefix(section: str, grid: Grid) -> Grid:
    """The grid with `section.` before each key."""
    part = _rereadable(grid)
    return _Lazy(lambda: ({f"{section}.{key}": value for key, value in c.items()} for c in part))


def where(grid: Grid, predicate: Callable[[Changes], bool]) -> Grid:
    """The changes that the predicate is true of."""
    part = _rereadable(grid)
    return _Lazy(lambda: (changes for changes in part if predicate(changes)))


def subsample(grid: Grid, n: int, seed: int = 0) -> Grid:
    """n changes of the grid, picked at random by the seed, in the grid's order.

    Which are picked depends on their places in the grid alone, and a larger n picks others besides
    the same ones: runs that are done stay part of the sweep. Raises ValueError if n is negative or
    exceeds the grid.
    """
    changes = list(grid)
    if not 0 <= n <= len(changes):
        raise ValueError(f"a subsample of {n} from a grid of {len(changes)} changes")

    def rank(place: int) -> str:  # not random.sample: no Python release may change the pick
        return checksum(f"{seed}:{place}")

    return [changes[place] for place in sorted(sorted(range(len(changes)), key=rank)[:n])]


def _merge(parts: Sequence[Changes]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key in merged and merged[key] != value:
                raise ValueError(
                    f"two grids of a product or zip set {key}: to {merged[key]!r} and to {value!r}"
                )
            merged[key] = value
    return merged


def _rereadable(grid: Grid) -> Grid:
    """The grid itself, or a list of what an iterator, which can be read only once, yields."""
    return list(grid) if isinstance(grid, Iterator) else grid
