"""Combinators of grids: sizes, order, laziness, conflicts, and picks that never change."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.sweep.grid import chain, prefix, product, seeds, subsample, values, where, zipped

QUICK = settings(max_examples=60)
LENGTHS = st.lists(st.integers(0, 4), max_size=4)


def grids(lengths):
    return [values(f"key{i}", range(n)) for i, n in enumerate(lengths)]


@pytest.mark.smoke
@QUICK
@given(LENGTHS)
def test_a_product_holds_every_combination_once_the_last_key_fastest(lengths):
    made = list(product(*grids(lengths)))
    assert len(made) == math.prod(lengths)
    places = [tuple(change[f"key{i}"] for i in range(len(lengths))) for change in made]
    assert places == list(itertools.product(*map(range, lengths)))


@QUICK
@given(LENGTHS)
def test_a_chain_is_as_long_as_its_parts(lengths):
    assert len(list(chain(*grids(lengths)))) == sum(lengths)


@QUICK
@given(st.integers(0, 5), st.integers(0, 5))
def test_zipped_needs_equal_lengths(first, second):
    parts = values("a", range(first)), values("b", range(second))
    if first == second:
        assert list(zipped(*parts)) == [{"a": i, "b": i} for i in range(first)]
    else:
        with pytest.raises(ValueError, match=f"{first}, {second} changes; need equal"):
            zipped(*parts)


@QUICK
@given(st.integers(0, 12), st.data(), st.integers(0, 5))
def test_a_subsample_is_determined_ordered_and_grows(n, data, seed):
    grid = values("a", range(n))
    small = data.draw(st.integers(0, n))
    large = data.draw(st.integers(small, n))
    picked = list(subsample(grid, small, seed))
    assert len(picked) == small
    assert picked == list(subsample(product(grid), small, seed))
    more = list(subsample(grid, large, seed))
    assert more == sorted(more, key=lambda change: change["a"])
    assert all(change in more for change in picked)


def test_a_subsample_by_hand_so_that_it_is_the_same_in_every_release():
    assert [change["a"] for change in subsample(values("a", range(10)), 4, seed=1)] == PICKED
    assert [change["a"] for change in subsample(values("a", range(10)), 4, seed=2)] != PICKED


PICKED = [4, 6, 7, 8]


@pytest.mark.parametrize("n", [-1, 4])
def test_a_subsample_larger_than_the_grid_is_refused(n):
    with pytest.raises(ValueError, match=f"a subsample of {n} from a grid of 3"):
        subsample(seeds(3), n)


def test_prefix_and_where():
    grid = prefix("optimizer", product(values("b1", [0.8, 0.9]), values("b2", [0.95])))
    assert list(where(grid, lambda change: change["optimizer.b1"] > 0.85)) == [
        {"optimizer.b1": 0.9, "optimizer.b2": 0.95}
    ]


def test_a_conflict_names_the_key_and_both_values():
    clash = product(values("seed", [1]), values("seed", [2]))
    with pytest.raises(ValueError, match="set seed: to 1 and to 2"):
        list(clash)
    with pytest.raises(ValueError, match="set seed: to 1 and to 2"):
        zipped(values("seed", [1]), values("seed", [2]))
    assert list(product(values("seed", [1]), values("seed", [1]))) == [{"seed": 1}]


def test_grids_are_lazy_and_can_be_read_again():
    def endless():
        for i in itertools.count():
            yield {"seed": i}

    class Endless:
        def __iter__(self):
            return endless()

    even = where(prefix("a", Endless()), lambda change: change["a.seed"] % 2 == 0)
    for _ in range(2):
        assert list(itertools.islice(chain(even), 2)) == [{"a.seed": 0}, {"a.seed": 2}]
    # A generator can be read only once; a grid made of it can be read twice.
    twice = product(change for change in seeds(3))
    assert list(twice) == list(twice) == list(seeds(3))
