import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.data.permutation import U64, mix, permute


def permutation(size: int, key: int) -> np.ndarray:
    return permute(np.arange(size, dtype=U64), size, np.full(size, key, U64))


@pytest.mark.smoke
@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_is_a_bijection(size, key):
    assert np.array_equal(np.sort(permutation(size, key)), np.arange(size, dtype=U64))


def test_any_index_of_a_huge_range_without_holding_it():
    size = 2**40 + 7
    indices = np.arange(size - 2000, size, dtype=U64)
    images = permute(indices, size, np.zeros(2000, U64))
    assert len(set(images.tolist())) == 2000
    assert images.max() < size
    assert images.astype(float).std() > 0.2 * size


def test_keys_apply_elementwise():
    keys = np.array([1, 2, 1], U64)
    together = permute(np.array([5, 5, 6], U64), 1000, keys)
    alone = [permutation(1000, k)[i] for i, k in ((5, 1), (5, 2), (6, 1))]
    assert together.tolist() == alone


@pytest.mark.parametrize("size", [3, 5, 24, 100])
def test_images_and_gaps_are_uniform_over_keys(size):
    """Chi-squared over 20,000 keys; the bound is 6 standard deviations of its distribution."""
    n = 20_000
    keys = mix(np.arange(n, dtype=U64))
    first = permute(np.zeros(n, U64), size, keys).astype(int)
    second = permute(np.ones(n, U64), size, keys).astype(int)
    for counts in (
        np.bincount(first, minlength=size),
        np.bincount((second - first) % size, minlength=size)[1:],
    ):
        expected = n / len(counts)
        freedom = len(counts) - 1
        assert ((counts - expected) ** 2 / expected).sum() < freedom + 6 * (2 * freedom) ** 0.5


def test_neighbours_are_scattered():
    order = permutation(100_000, 5).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.015
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.015
    assert abs(np.corrcoef(order, permutation(100_000, 6))[0, 1]) < 0.015
