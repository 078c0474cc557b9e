"""Trunks and branched cooldowns: complete configs that share their stable part to the bit."""

import numpy as np
import pytest

from gpt_jax.config import Config, ModelConfig, ScheduleConfig, TrainConfig, overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.sweep.branches import wsd_branches
from gpt_jax.sweep.budget import flops_budgets
from gpt_jax.sweep.grid import values
from gpt_jax.sweep.trial import Infeasible, Trial

BATCH = 8 * 32
BASE = Config(
    name="base",
    model=ModelConfig(vocab_size=256, seq_len=32, n_layers=2, d_model=32, n_heads=2),
    train=TrainConfig(tokens=100_000, batch_sequences=8),
    schedule=ScheduleConfig(name="cosine", warmup_tokens=4 * BATCH, final_fraction=0.1),
)
GRID = values("optimizer.learning_rate", [1e-2, 1e-3])


def branches(*given, **more) -> list[Trial]:
    trials = wsd_branches(*given, **more)
    assert all(isinstance(trial, Trial) for trial in trials)
    return trials


@pytest.mark.smoke
def test_trunks_first_each_with_its_branches():
    trials = branches(BASE, GRID, [20 * BATCH, 40 * BATCH, 100 * BATCH], fraction=0.25)
    trunks, cut = trials[:2], trials[2:]
    assert [t.name for t in trunks] == [
        "learning_rate=0.01,stage=trunk",
        "learning_rate=0.001,stage=trunk",
    ]
    for trunk in trunks:
        assert trunk.trunk is None
        assert trunk.varied["stage"] == "trunk"
        assert trunk.config.schedule.name == "wsd"
        assert trunk.config.schedule.cooldown_tokens == 0
        assert trunk.config.train.tokens == 75 * BATCH
        assert trunk.config.checkpoint.keep_at_tokens == (15 * BATCH, 30 * BATCH, 75 * BATCH)
    assert len(cut) == 6
    for trial, parts in zip(cut, 2 * [(20, 5), (40, 10), (100, 25)], strict=True):
        got = trial.config.train.tokens, trial.config.schedule.cooldown_tokens
        assert got == (parts[0] * BATCH, parts[1] * BATCH)
    assert [t.trunk for t in cut] == 3 * [trunks[0].config] + 3 * [trunks[1].config]


def test_a_branch_differs_from_its_trunk_in_length_and_cooldown_alone():
    trials = branches(BASE, GRID, [5_000, 9_999.0])
    for trial in trials[2:]:
        assert trial.trunk is not None
        differing = overrides.differences(trial.trunk, trial.config)
        assert set(differing) <= {"train.tokens", "schedule.cooldown_tokens"}
        tokens, cooldown = trial.config.train.tokens, trial.config.schedule.cooldown_tokens
        start = tokens - cooldown
        assert start in trial.trunk.checkpoint.keep_at_tokens
        assert start % BATCH == tokens % BATCH == 0
        assert abs(cooldown - 0.2 * tokens) <= BATCH / 2


@pytest.mark.parametrize("final_fraction", [0.0, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("ramp", [False, True])
def test_the_learning_rate_of_the_stable_part_is_the_trunk_s_to_the_bit(final_fraction, ramp):
    from gpt_jax.optim.schedule import learning_rate_schedule

    base = overrides.override(BASE, {"schedule.final_fraction": final_fraction})
    if ramp:
        base = overrides.override(
            base, {"train.ramp_from_sequences": 2, "train.ramp_tokens": 16 * BATCH}
        )
    trials = branches(base, [{}], [40 * BATCH, 100 * BATCH])
    trunk = trials[0].config
    rates = {}
    for trial in trials:
        table = make_timetable(trial.config)
        steps = np.arange(table.n_steps)
        rates[trial.name] = np.asarray(learning_rate_schedule(trial.config, table)(steps))
    for trial in trials[1:]:
        config = trial.config
        start = config.train.tokens - config.schedule.cooldown_tokens
        done = make_timetable(config).step_after_tokens(start)
        assert make_timetable(config).tokens_before(done) == start
        assert make_timetable(trunk).tokens_before(done) == start
        np.testing.assert_array_equal(rates[trial.name][:done], rates[trials[0].name][:done])
        assert rates[trial.name][done] < rates[trial.name][done - 1]


def test_totals_may_be_budgets_spent_at_each_grid_point():
    trials = branches(BASE, values("model.n_layers", [1, 3]), flops_budgets([1e11, 3e11]))
    assert len(trials) == 2 + 4
    for trial, budget in zip(trials[2:], [1e11, 3e11] * 2, strict=True):
        spent = flops.training_flops(trial.config.model, trial.config.train.tokens)
        assert abs(spent - budget) <= flops.training_flops(trial.config.model, BATCH) / 2
    assert trials[2].name == "n_layers=1,flops=1e11"


def test_totals_may_depend_on_the_grid_point():
    totals = {1e-2: [20 * BATCH], 1e-3: [20 * BATCH, 40 * BATCH]}
    trials = branches(BASE, GRID, lambda point: totals[point["optimizer.learning_rate"]])
    assert [t.name for t in trials] == [
        "learning_rate=0.01,stage=trunk",
        "learning_rate=0.001,stage=trunk",
        "learning_rate=0.01,tokens=5120",
        "learning_rate=0.001,tokens=5120",
        "learning_rate=0.001,tokens=10240",
    ]
    assert [t.trunk for t in trials[2:]] == [trials[i].config for i in (0, 1, 1)]


def test_derive_holds_for_trunk_and_branches_alike():
    trials = branches(
        BASE,
        GRID,
        [20 * BATCH, 100 * BATCH],
        derive=lambda c: {"schedule.warmup_tokens": c.train.tokens // 20},
    )
    assert {t.config.schedule.warmup_tokens for t in trials} == {5 * BATCH}


def test_a_total_too_short_is_infeasible_and_says_why():
    cells = wsd_branches(BASE, [{"schedule.warmup_tokens": 0}], [2 * BATCH], fraction=0.1)
    assert all(isinstance(cell, Infeasible) for cell in cells)
    assert "leaves less than a batch for itself" in cells[0].reason
    # Shorter than the warmup: only that branch is lost.
    trunk, short, long = wsd_branches(BASE, [{}], [4 * BATCH, 50 * BATCH], fraction=0.25)
    assert isinstance(short, Infeasible)
    assert isinstance(trunk, Trial)
    assert isinstance(long, Trial)


@pytest.mark.parametrize(
    ("grid", "totals", "fraction", "message"),
    [
        (GRID, [], 0.2, "at least one total"),
        (GRID, [1e4], 1.0, "allowed: between 0 and 1"),
        ([{"train.tokens": 5}], [1e4], 0.2, "sets train.tokens, which `totals` decides"),
        ([{"budget.flops": 5}], [1e4], 0.2, "sets budget.flops, which `totals` decides"),
    ],
)
def test_mistakes(grid, totals, fraction, message):
    with pytest.raises(ValueError, match=message):
        wsd_branches(BASE, grid, totals, fraction)


def test_one_total():
    names = [t.name for t in branches(BASE, [{}], [9_999])]
    assert names == ["stage=trunk", "tokens=9999"]
