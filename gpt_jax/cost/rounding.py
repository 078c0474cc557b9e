"""Sizes rounded up to few, so that calls of similar size share a compiled program. Must not import
jax.
"""


def round_up(n: int, per_octave: int = 1) -> int:
    """The least size from n on, of so many evenly spaced ones up to each power of two.

    per_octave: a power of two; 1: the powers of two alone; 2: also three quarters of each.
    """
    step = max(1, (1 << (n - 1).bit_length()) // (2 * per_octave))
    return -(-n // step) * step
