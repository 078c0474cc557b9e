"""Ladders: heads keep their size, widths their multiple, and sizes are near what was asked for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.config import Config, ModelConfig, overrides
from gpt_jax.cost.flops import count_parameters
from gpt_jax.scaling.ladder import ratio
from gpt_jax.sweep import ladder

BASE = ModelConfig(vocab_size=512, seq_len=128, bias=False)
CONVENTIONS = ("n_params", "n_params_non_embedding", "n_params_matmul")


def model(change, base=BASE) -> ModelConfig:
    return overrides.override(Config(model=base), change).model


def count(shape: ModelConfig, convention: str) -> int:
    return getattr(count_parameters(shape), convention)


def test_by_depth():
    shapes = [model(change) for change in ladder.by_depth([2, 4, 6], 48, head_size=32)]
    assert [(m.n_layers, m.d_model, m.n_heads) for m in shapes] == [
        (2, 96, 3),
        (4, 192, 6),
        (6, 288, 9),
    ]


@pytest.mark.smoke
def test_the_gpt2_ladder_has_the_published_shapes():
    small = model(next(iter(ladder.by_depth([12]))), ModelConfig())
    assert small == ModelConfig()
    assert count(small, "n_params") == 124_439_808


def test_by_width_rounds_to_the_multiple_at_one_depth():
    grid = ladder.by_width([100, 200, 1], n_layers=3, head_size=16, multiple=32)
    shapes = [model(change) for change in grid]
    assert [(m.n_layers, m.d_model, m.n_heads) for m in shapes] == [
        (3, 96, 6),
        (3, 192, 12),
        (3, 32, 2),
    ]


def test_a_base_with_a_head_size_of_its_own_does_not_keep_it():
    base = ModelConfig(n_heads=2, d_model=64, head_size=128)
    assert model(ladder.by_depth([2], 64, head_size=32)[0], base).d_head == 32


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_by_aspect_ratio_goes_from_deep_to_wide_at_nearly_one_size(convention):
    asked = [4, 16, 64]
    grid = ladder.by_aspect_ratio(BASE, asked, 3e6, convention, head_size=16)
    shapes = [model(change) for change in grid]
    assert len(shapes) == len(asked)
    for shape, aspect in zip(shapes, asked, strict=True):
        assert ratio(shape.d_model / shape.n_layers, aspect) < 1.5
        assert ratio(count(shape, convention), 3e6) < 1.15
        assert shape.d_head == 16


@settings(max_examples=40)
@given(st.sampled_from(CONVENTIONS), st.floats(1e6, 1e9), st.sampled_from([16, 32, 64]))
def test_by_parameters_finds_the_nearest_shape_there_is(convention, size, head_size):
    (change,) = ladder.by_parameters(BASE, [size], convention, 40, head_size)
    found = model(change)
    assert found.d_head == head_size
    assert ratio(found.d_model / found.n_layers, 40) <= ladder.TOLERANCE
    missed = ratio(count(found, convention), size)
    for n_layers in (found.n_layers - 1, found.n_layers, found.n_layers + 1):
        for width in (found.d_model - head_size, found.d_model, found.d_model + head_size):
            if n_layers and width and ratio(width / n_layers, 40) <= ladder.TOLERANCE:
                (other,) = ladder.by_width([width], n_layers, head_size)
                assert ratio(count(model(other), convention), size) >= missed


def test_by_parameters_keeps_to_the_layer_pattern():
    base = ModelConfig(layer_pattern=("dense", "banded"), window=64)
    for change in ladder.by_parameters(base, [5e7, 1e8, 2e8]):
        assert model(change, base).n_layers % 2 == 0


def test_a_size_that_no_shape_is_near_is_refused():
    with pytest.raises(ValueError, match=r"no shape has n_params near 1,000: the nearest, 1 lay"):
        ladder.by_parameters(BASE, [1e3])
    with pytest.raises(ValueError, match="no shape has width / depth near 1,000"):
        ladder.by_aspect_ratio(BASE, [1000], 1e6, head_size=16)


def test_a_multiple_that_cuts_heads_is_refused():
    with pytest.raises(ValueError, match=r"multiples of 48, which is not one of head_size = 32"):
        ladder.by_depth([2], head_size=32, multiple=48)
