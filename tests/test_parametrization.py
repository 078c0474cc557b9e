"""muP and CompleteP: the papers' tables, and what is refused.

The model that follows them is in models/test_parametrized.py, updates in
test_optim_parametrization.py, and what comes of it in test_coord_check.py.
"""

import math

import pytest

from gpt_jax.config import Config, ModelConfig, OptimizerConfig
from gpt_jax.optim.entry import OPTIMIZERS
from gpt_jax.optim.parametrization import (
    gradient_factor,
    learning_rate_factor,
    matrix_std,
    output_multiplier,
    residual_init_layers,
    residual_multiplier,
    score_divisor,
    sinusoid_embedding_multiplier,
)

SIZES = {"vocab_size": 11, "seq_len": 8, "n_layers": 4, "d_model": 16, "n_heads": 2}


def model(**changes) -> ModelConfig:
    return ModelConfig(**{**SIZES, **changes})


def mup(**changes) -> ModelConfig:
    """m = 4."""
    return model(**{"parametrization": "mup", "base_d_model": 4} | changes)


def completep(**changes) -> ModelConfig:
    """m = 4, l = 2."""
    base = {"parametrization": "completep", "base_d_model": 4, "base_n_layers": 2}
    return model(**base | changes)


# --- The tables. ---


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("optimizer", "group", "by_mup", "by_completep"),
    [
        # TP5 table 8, row "Adam LR": 1, 1, 1 / fan_in. CompleteP table 1: times l^(1 - 1).
        ("adamw", "input", 1, 1),
        ("adamw", "hidden", 1 / 4, 1 / 4),
        ("adamw", "hidden_vector", 1, 1),
        ("adamw", "per_head", 1, 1),
        ("adamw", "vector", 1, 1),
        ("adamw", "output", 1, 1),
        ("adam", "hidden", 1 / 4, 1 / 4),
        ("lion", "hidden", 1 / 4, 1 / 4),
        # TP5 table 8, row "SGD LR": fan_out, 1, fan_in; the blocks also times l.
        ("sgd", "input", 4, 4),
        ("sgd", "hidden", 1, 2),
        ("sgd", "hidden_vector", 4, 8),
        ("sgd", "per_head", 1, 2),
        ("sgd", "vector", 4, 4),
        ("sgd", "output", 4, 4),
        ("muon", "hidden", 1 / 2, 1 / 2),
        ("muon", "input", 1, 1),
        ("muon", "output", 1, 1),
    ],
)
def test_learning_rates_are_the_tables(optimizer, group, by_mup, by_completep):
    rule = OPTIMIZERS.find(optimizer).mup(group, None)
    assert learning_rate_factor(mup(), rule, group) == by_mup
    assert learning_rate_factor(completep(), rule, group) == by_completep
    assert learning_rate_factor(model(), rule, group) == 1


@pytest.mark.parametrize(
    ("group", "by_mup", "by_completep"),
    [
        # CompleteP table 1, AdamW epsilon of residual blocks, and its equation 40.
        ("input", 1 / 4, 1 / 4),
        ("hidden", 1 / 4, 1 / 8),
        ("hidden_vector", 1 / 4, 1 / 8),
        ("per_head", 1, 1 / 2),
        ("vector", 1 / 4, 1 / 4),
        ("output", 1 / 4, 1 / 4),
    ],
)
def test_epsilons_are_the_tables(group, by_mup, by_completep):
    assert gradient_factor(mup(), group) == by_mup
    assert gradient_factor(completep(), group) == by_completep
    assert gradient_factor(model(), group) == 1


def test_multipliers_are_the_tables():
    assert [output_multiplier(c) for c in (model(), mup(), completep())] == [1, 1 / 4, 1 / 4]
    assert [residual_multiplier(c) for c in (model(), mup(), completep())] == [1, 1, 1 / 2]
    assert [residual_init_layers(c) for c in (model(), mup(), completep())] == [4, 4, 2]
    assert [sinusoid_embedding_multiplier(c) for c in (model(), mup())] == [4, 2]
    # Heads of 8: sqrt(8) while their number grows; 8 / sqrt(2) where heads of 2 have grown.
    assert score_divisor(model()) == score_divisor(mup()) == math.sqrt(8)
    assert score_divisor(mup(base_head_size=8)) == math.sqrt(8)
    assert score_divisor(mup(base_head_size=2)) == pytest.approx(8 / math.sqrt(2))


def test_fan_in_initialisation_starts_the_head_as_at_the_base():
    """TP5 table 8, row "Init. Var.", output weights: constant."""
    config = mup(init_matrices="fan_in")
    assert matrix_std(config, 16, "hidden") == pytest.approx(1 / math.sqrt(16))
    assert matrix_std(config, 16, "output") == pytest.approx(1 / math.sqrt(4))


# --- Mistakes. ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parametrization": "mup"}, "model.parametrization = mup needs model.base_d_model"),
        (
            {"parametrization": "completep", "base_d_model": 4},
            "model.parametrization = completep needs model.base_n_layers",
        ),
        ({"base_d_model": 4}, "model.base_d_model = 4 is for model.parametrization = mup or"),
        ({"base_head_size": 4}, "model.base_head_size = 4 is for"),
        (
            {"parametrization": "mup", "base_d_model": 4, "base_n_layers": 2},
            "model.base_n_layers = 2 is for model.parametrization = completep, not mup",
        ),
        (
            {"parametrization": "completep", "base_d_model": 4, "base_n_layers": 2}
            | {"norm_position": "post"},
            "completep needs model.norm_position = pre",
        ),
    ],
)
def test_inconsistent_parametrizations_are_refused_in_one_line(changes, said):
    with pytest.raises(ValueError, match=r"model\.") as caught:
        model(**changes)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ({"name": "adafactor"}, "optimizer.name = adafactor has no rule"),
        ({"name": "adam"}, "optimizer.weight_decay = 0.1 .L2 in the gradient. has no rule"),
    ],
)
def test_optimizers_without_a_rule_are_refused(optimizer, said):
    Config(model=mup(), optimizer=OptimizerConfig(name="adam", weight_decay=0))
    Config(model=model(), optimizer=OptimizerConfig(**optimizer))
    with pytest.raises(ValueError, match=said):
        Config(model=mup(), optimizer=OptimizerConfig(**optimizer))
