"""Names say what varies, are safe as file names, and never stand for two trials."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.sweep.grid import product, values
from gpt_jax.sweep.naming import LONGEST, name_trials, safe, show

SAFE = re.compile(r"[A-Za-z0-9_=+,][A-Za-z0-9._=,+-]*")


def names(*varied):
    return name_trials(list(varied), "base")


def test_constants_and_what_follows_from_others_are_left_out():
    shapes = [{"model.d_model": d, "model.n_heads": d // 32, "model.bias": False} for d in (64, 96)]
    grid = product(shapes, values("optimizer.learning_rate", [1e-2, 1e-3]))
    assert name_trials(list(grid), "base") == [
        "d_model=64,learning_rate=0.01",
        "d_model=64,learning_rate=0.001",
        "d_model=96,learning_rate=0.01",
        "d_model=96,learning_rate=0.001",
    ]


def test_where_nothing_varies_the_base_names_the_trial():
    assert names({"seed": 1}) == ["base"]
    assert names({}, {}) == ["base", "base"]


def test_a_key_is_long_where_two_would_look_the_same():
    corpora = [{"data.path": "a"}, {"data.path": "b"}]
    grid = product(corpora, [{"data.tokenizer_path": "x"}, {"data.tokenizer_path": "y"}])
    assert name_trials(list(grid), "base")[0] == "path=a,tokenizer_path=x"
    budgets = [{"train.tokens": 100}, {"train.tokens": 200}, {"budget.tokens": 100}]
    assert names(*budgets) == ["train.tokens=100", "train.tokens=200", "budget.tokens=100"]


def test_a_trial_without_any_of_the_keys_is_named_by_what_it_sets():
    shapes = [{"model.n_layers": n, "model.d_model": 64 * n} for n in (1, 2)]
    odd = {"model.d_model": 100}
    assert names(*shapes, odd) == ["n_layers=1", "n_layers=2", "d_model=100"]


def test_a_section_s_name_is_called_by_its_section():
    assert names({"optimizer.name": "lion"}, {"optimizer.name": "muon"})[0] == "optimizer=lion"


def test_a_key_that_a_trial_does_not_set_is_not_in_its_name():
    varied = {"seed": 1}, {"seed": 2}, {"seed": 1, "stage": "trunk"}
    assert names(*varied) == ["seed=1", "seed=2", "seed=1,stage=trunk"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e15, "1e15"),
        (3.2e-05, "3.2e-5"),
        (0.003, "0.003"),
        (512.0, "512"),
        (10**15, "1e15"),
        (1_000_000, "1e6"),
        (1024, "1024"),
        (65536, "65536"),
        (10240, "10240"),
        (10240.0, "10240"),
        (250_000, "2.5e5"),
        (True, "true"),
        (None, "none"),
        (("dense", "banded"), "dense+banded"),
    ],
)
def test_values_are_compact(value, text):
    assert show(value, 4) == text


def test_digits_are_as_many_as_it_takes():
    assert names({"x": 10**-2.5}, {"x": 1e-2}) == ["x=0.003162", "x=0.01"]
    assert names({"x": 0.1 + 0.2}, {"x": 0.3}) == ["x=0.30000000000000004", "x=0.3"]


def test_unsafe_characters_and_capitals():
    first, second, third = names({"path": "a/b c"}, {"path": "a_b_c"}, {"path": "A_b_c"})
    assert len({first.casefold(), second.casefold(), third.casefold()}) == 3
    assert first.startswith("path=a_b_c-")
    assert safe("../..") == "_.." or "/" not in safe("../..")
    assert safe("") == "_"


def test_a_long_name_is_cut_and_stays_unique():
    varied = [{f"section.key_number_{i}": i * j for i in range(12)} for j in (1, 2)]
    varied += [{**varied[0], f"section.key_number_{i}": -1} for i in range(12)]
    made = names(*varied)
    assert max(map(len, made)) == LONGEST
    assert len(set(made)) == len(made)


VALUES = st.one_of(
    st.integers(-3, 10**7), st.floats(allow_nan=False), st.booleans(), st.none(), st.text()
)
VARIED = st.dictionaries(st.sampled_from(["model.a", "model.b", "data.a", "seed"]), VALUES)


@pytest.mark.smoke
@settings(max_examples=200)
@given(st.lists(VARIED, min_size=1, max_size=8))
def test_any_names_are_safe_and_different_unless_the_trials_are_equal(varied):
    made = name_trials(varied, "base")
    assert made == name_trials(varied, "base")
    for name in made:
        assert SAFE.fullmatch(name)
        assert len(name) <= LONGEST
    for i, first in enumerate(varied):
        for j, second in enumerate(varied):
            same = first == second and list(map(type, first.values())) == list(
                map(type, second.values())
            )
            if made[i].casefold() == made[j].casefold():
                assert first == second
            elif same:
                assert made[i] == made[j]
