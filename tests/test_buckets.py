"""Sizes rounded up to few."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.cost.rounding import round_up


@given(st.integers(1, 10**9), st.sampled_from([1, 2, 4]))
def test_the_least_size_that_is_enough(n, per_octave):
    size = round_up(n, per_octave)
    assert n <= size < n * (1 + 1 / per_octave) + 1
    assert round_up(size, per_octave) == size


@pytest.mark.parametrize(
    ("per_octave", "sizes"),
    [(1, {9: 16, 16: 16, 17: 32}), (2, {9: 12, 13: 16, 17: 24}), (4, {9: 10, 11: 12, 17: 20})],
)
def test_sizes_of_an_octave(per_octave, sizes):
    assert {n: round_up(n, per_octave) for n in sizes} == sizes
