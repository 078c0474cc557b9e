"""A pseudo-random permutation that is evaluated at any index, with nothing held in memory.

A generalised Feistel network over Z_a x Z_b with a b >= size, and cycle walking for the few
images beyond the end (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002,
methods 2 and 3). It stands here, and not in a library, because it *is* the order of the data:
an upgrade must not change it. Grain's index_shuffle takes one index a call and is private;
`tools/benchmark_data.py` measures its shuffled data set beside this one.
Must not import jax.
"""

import math

import numpy as np
from numpy.typing import NDArray

U64 = np.uint64
Keys = NDArray[np.uint64]

ROUNDS = 12
"""With 6, permutations of fewer than ten things are not uniform (chi-squared)."""
GOLDEN = U64(0x9E3779B97F4A7C15)


def mix(x: Keys) -> Keys:
    """A bijection of 64-bit words in which every input bit moves every output bit (splitmix64)."""
    x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    return x ^ (x >> U64(31))


def fold(keys: Keys, values: Keys) -> Keys:
    """New keys from keys and values, elementwise; different values give unrelated keys."""
    return mix(keys + mix((values + U64(1)) * GOLDEN))


def permute(indices: Keys, size: int, keys: Keys) -> Keys:
    """Where the permutation of range(size) chosen by each key sends each index.

    Args:
      indices: (n,) uint64 below `size`.
      size: number of things permuted, up to 2**62.
      keys: (n,) uint64; equal keys mean the same permutation.
    """
    columns = math.isqrt(size - 1) + 1
    rows = -(-size // columns)
    images = _feistel(indices, rows, columns, keys)
    beyond = np.flatnonzero(images >= size)
    while beyond.size:
        images[beyond] = _feistel(images[beyond], rows, columns, keys[beyond])
        beyond = beyond[images[beyond] >= size]
    return images


def _feistel(indices: Keys, rows: int, columns: int, keys: Keys) -> Keys:
    """A permutation of range(rows * columns): each half is shifted by a hash of the other."""
    row, column = np.divmod(indices, U64(columns))
    for _ in range(ROUNDS // 2):
        keys = keys + GOLDEN
        # Halved, so that the sum stays below 2**64: a wrap would spoil the bijection.
        row = (row + (mix(column ^ keys) >> U64(1))) % U64(rows)
        keys = keys + GOLDEN
        column = (column + (mix(row ^ keys) >> U64(1))) % U64(columns)
    return row * U64(columns) + column
