"""Trials: the order of resolution, exact budgets, identity, and infeasible cells."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.config import (
    Config,
    ModelConfig,
    ScheduleConfig,
    TrainConfig,
    overrides,
)
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.sweep import ladder
from gpt_jax.sweep.budget import (
    flops_budgets,
    parse_budget,
    token_budgets,
    tokens_per_param_budgets,
)
from gpt_jax.sweep.grid import chain, product, seeds, values
from gpt_jax.sweep.trial import Infeasible, Trial, make_trials

BASE = Config(
    name="base",
    model=ModelConfig(vocab_size=256, seq_len=32, n_layers=2, d_model=32, n_heads=2),
    train=TrainConfig(tokens=100_000, batch_sequences=4),
    schedule=ScheduleConfig(warmup_tokens=50_000),
)
BATCH = 4 * 32
FLOPS_CONVENTIONS = flops.Convention.__args__
PARAMS_CONVENTIONS = ("n_params", "n_params_non_embedding", "n_params_matmul")
COLD = overrides.override(BASE, {"schedule.warmup_tokens": 0})


def only(trials) -> Trial:
    (trial,) = trials
    assert isinstance(trial, Trial), trial.reason
    return trial


# --- budgets ------------------------------------------------------------------------------------


@pytest.mark.smoke
@settings(max_examples=60)
@given(
    st.sampled_from(FLOPS_CONVENTIONS),
    st.floats(1e11, 1e15),
    st.integers(1, 4),
    st.integers(1, 64),
    st.booleans(),
)
def test_flops_are_within_half_a_batch_of_the_budget(convention, budget, depth, batch, ramp):
    grid = product(
        ladder.by_depth([depth], 16, head_size=8),
        values("train.batch_sequences", [batch]),
        flops_budgets([budget], convention),
    )
    base = COLD
    if ramp:
        base = overrides.override(
            COLD, {"train.ramp_from_sequences": 1, "train.ramp_tokens": 20_000}
        )
    config = only(make_trials(base, grid)).config
    table = make_timetable(config)
    assert table.n_tokens == config.train.tokens  # whole batches
    spent = flops.training_flops(config.model, table.n_tokens, convention)
    of_a_batch = flops.training_flops(config.model, batch * 32, convention)
    assert abs(spent - budget) <= 0.5 * of_a_batch * (1 + 1e-9)


@pytest.mark.parametrize("convention", PARAMS_CONVENTIONS)
def test_tokens_per_parameter(convention):
    config = only(make_trials(COLD, tokens_per_param_budgets([20], convention))).config
    n_params = getattr(flops.count_parameters(config.model), convention)
    assert abs(config.train.tokens - 20 * n_params) <= BATCH / 2
    assert config.train.tokens % BATCH == 0


def test_tokens_are_rounded_to_whole_batches():
    trials = make_trials(COLD, token_budgets([64, 65, 1000, 1e5]))
    assert [t.config.train.tokens for t in trials] == [128, 1024, 99_968]  # 64 and 65: one trial


def test_less_than_half_a_batch_is_infeasible():
    (cell,) = make_trials(COLD, token_budgets([63]))
    assert isinstance(cell, Infeasible)
    assert "budget.tokens = 63 is 63 tokens, less than a batch" in cell.reason
    assert "= 128)" in cell.reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget.flop": 1e12}, "unknown budget 'budget.flop'; known: budget.tokens, budget.flops"),
        ({"budget.flops": 1e12, "budget.tokens": 1e3}, "both say how long to train"),
        ({"budget.flops": 1e12, "train.tokens": 1000}, "both say how long to train"),
        ({"budget.flops_convention": "palm"}, "without an amount"),
        ({"budget.flops": -1.0}, "allowed: a number above 0"),
        ({"budget.flops": math.nan}, "allowed: a number above 0"),
        ({"budget.flops": "1e12"}, "allowed: a number above 0"),
        ({"budget.flops": 1e12, "budget.flops_convention": "7nd"}, "7nd; allowed: exact, "),
        (
            {"budget.tokens_per_param": 20, "budget.params_convention": "N"},
            "N; allowed: n_params, ",
        ),
    ],
)
def test_mistaken_budgets(changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_budget(changes)


# --- order of resolution ------------------------------------------------------------------------


def test_derive_sees_change_and_budget_and_has_the_last_word():
    seen = []

    def derive(config: Config):
        seen.append((config.model.d_model, config.train.tokens, config.optimizer.learning_rate))
        return {
            "schedule.warmup_tokens": config.train.tokens // 50,
            "optimizer.learning_rate": 1 / config.model.d_model,
        }

    grid = product(
        values("model.d_model", [64]),
        values("optimizer.learning_rate", [0.5]),
        token_budgets([12_800]),
    )
    trial = only(make_trials(BASE, grid, derive))
    assert seen == [(64, 12_800, 0.5)]
    assert trial.config.schedule.warmup_tokens == 256
    assert trial.config.optimizer.learning_rate == 1 / 64
    assert trial.varied["optimizer.learning_rate"] == 0.5  # as declared


def test_derive_mends_what_a_change_broke_and_without_it_the_cell_is_infeasible():
    """The base warms up over more tokens than these trials have."""
    grid = [{"train.tokens": 12_800}, *token_budgets([25_600])]
    for cell in make_trials(BASE, grid):
        assert isinstance(cell, Infeasible)
        assert "schedule.warmup_tokens = 50,000 exceeds train.tokens" in cell.reason
    mended = make_trials(BASE, grid, lambda c: {"schedule.warmup_tokens": c.train.tokens // 100})
    assert [t.config.schedule.warmup_tokens for t in mended] == [128, 256]


def test_a_budget_is_spent_anew_on_the_batch_and_model_that_derive_chooses():
    tokens_seen = []

    def derive(config: Config):
        tokens_seen.append(config.train.tokens)
        return {
            "train.batch_sequences": 7,
            "model.ffn_size": 3 * config.model.d_model,
            "schedule.warmup_tokens": config.train.tokens // 10,
        }

    config = only(make_trials(BASE, flops_budgets([1e12]), derive)).config
    assert config.train.tokens % (7 * 32) == 0
    spent = flops.training_flops(config.model, config.train.tokens)
    assert abs(spent - 1e12) <= flops.training_flops(config.model, 7 * 32) / 2
    assert config.schedule.warmup_tokens == config.train.tokens // 10
    assert tokens_seen[-1] == config.train.tokens != tokens_seen[0]


def test_a_derive_that_fights_the_budget_is_said_so():
    def restless(config: Config):
        return {"train.batch_sequences": 80 if config.train.tokens == 3 * 100 * 32 else 100}

    (cell,) = make_trials(COLD, token_budgets([8_000]), restless)
    assert not isinstance(cell, Trial)
    assert "do not settle" in cell.reason

    (cell,) = make_trials(COLD, token_budgets([10_000]), lambda c: {"train.tokens": 5})
    assert "derive sets train.tokens, which budget.tokens decides" in cell.reason


def test_a_derive_that_returns_nothing_is_said_so():
    (cell,) = make_trials(COLD, seeds(1), lambda c: None)
    assert "derive returned NoneType" in cell.reason


# --- identity -----------------------------------------------------------------------------------


def test_names_go_into_the_configs():
    trials = make_trials(COLD, product(seeds(2), values("optimizer.learning_rate", [1e-2, 1e-3])))
    assert [t.config.name for t in trials] == [t.name for t in trials]
    assert trials[0].name == "seed=0,learning_rate=0.01"
    assert len({overrides.fingerprint(t.config) for t in trials}) == 4


def test_identical_trials_are_one():
    grid = chain(seeds(2), seeds(3), [{"seed": 1, "optimizer.b1": COLD.optimizer.b1}])
    assert [t.config.seed for t in make_trials(COLD, grid)] == [0, 1, 2]


def test_what_is_not_part_of_a_trial_cannot_be_varied():
    with pytest.raises(ValueError, match=r"differ only in compute.dtype, which is how"):
        make_trials(COLD, values("compute.dtype", ["float32", "bfloat16"]))


def test_numpy_values_are_taken_as_python_s():
    grid = product(
        values("model.d_model", np.asarray([32, 64])),
        values("optimizer.learning_rate", np.geomspace(1e-3, 1e-2, 3)),
    )
    trials = make_trials(COLD, grid)
    assert len(trials) == 6
    assert {type(t.varied["model.d_model"]) for t in trials} == {int}
    assert {type(t.varied["optimizer.learning_rate"]) for t in trials} == {float}
    assert trials[1].name == "d_model=32,learning_rate=0.003162"


def test_one_bad_cell_leaves_the_others():
    good, bad = make_trials(COLD, values("model.d_model", [64, 65]))
    assert isinstance(good, Trial)
    assert isinstance(bad, Infeasible)
    assert bad.name == "d_model=65"
    assert "model.d_model = 65 is not divisible by model.n_heads = 2" in bad.reason


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([{"model.width": 3}], "unknown config key 'model.width'"),
        ([{"name": "mine"}], "trials are named by what varies"),
        ([3], "a grid holds 3; need changes"),
    ],
)
def test_a_mistaken_grid_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        make_trials(COLD, grid)


def test_the_base_is_left_alone():
    before = dataclasses.asdict(BASE)
    make_trials(BASE, product(seeds(2), token_budgets([1e6])))
    assert dataclasses.asdict(BASE) == before
