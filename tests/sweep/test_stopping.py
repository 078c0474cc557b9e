"""Rules that stop trials: predictions of planted curves, cells, halving, samples."""

import json
import math

import numpy as np
import pytest
from simulated_sweep import SimulatedSweep, make_config

from gpt_jax.cli import main
from gpt_jax.config.timetable import make_timetable
from gpt_jax.runs.history import History
from gpt_jax.scaling.curve import Curve, curve_values, from_parameters, make_blocks
from gpt_jax.scaling.schedules import make_schedule
from gpt_jax.sweep.hopeless import FinishedRun, beginning, nearest, predict, scaled
from gpt_jax.sweep.stopping import (
    Asha,
    Stop,
    can_be_stopped,
    cell_of,
    make_rule,
    read_stop,
    rung_loss,
    sample,
)

STEPS, GAP = 3000, 1.01
"""Steps of a run, and its final validation loss over its training loss."""
LAW = {"L0": 2.0, "A": 0.5, "alpha": 0.4, "B": 300.0, "C": 1.2, "beta": 0.55, "gamma": 0.5}
"""With rates scaled to a peak of 1e-3."""


def planted(peak: float, excess: float, seed: int = 0) -> FinishedRun:
    """A run whose losses lie above the law by a factor, with noise, under a cosine of this peak."""
    rates = make_schedule("cosine", STEPS + 1, 100, peak, 0.1 * peak)
    steps = np.arange(150, STEPS + 1, 30)
    bare = scaled(Curve(f"{peak:g}", rates, steps, np.full(steps.size, np.nan)))
    clean = curve_values(from_parameters(LAW)[None], make_blocks(bare))[0][0] * (1 + excess)
    noise = 1 + 0.002 * np.random.default_rng(seed).standard_normal(steps.size)
    curve = Curve(bare.name, bare.rates, steps, clean * noise)
    return FinishedRun(bare.name, curve, float(GAP * clean[-1]), peak)


FINISHED = [planted(1e-3 * 2.0**k, 0.02 * k**2, seed=k + 3) for k in range(-2, 3)]
"""Peaks around the best one, which is 1e-3."""


@pytest.mark.parametrize("share", [0.25, 0.5, 0.875])
def test_the_end_of_a_planted_run_is_within_its_interval(share):
    """A run that beats the finished ones, and two beyond them that do not."""
    for factor, excess in ((1.4, -0.01), (0.18, 0.12), (5.6, 0.12)):
        run = planted(1e-3 * factor, excess, seed=9)
        found = predict(beginning(run.curve, share), run.peak, share, FINISHED)
        assert found is not None
        assert found.low < run.final_loss < found.high
        assert found.high / found.low < 1.15
        best = min(one.final_loss for one in FINISHED)
        assert excess > 0 or found.low < best
        assert excess < 0 or share == 0.25 or found.low > best


def test_two_finished_runs_say_nothing():
    run = planted(1e-3, 0.1)
    assert predict(beginning(run.curve, 0.5), run.peak, 0.5, FINISHED[:2]) is None


def test_the_nearest_run_is_of_another_rate():
    """Seeds of one setting are more alike than settings are."""
    assert nearest(1e-3, FINISHED).peak in (5e-4, 2e-3)
    assert nearest(1.9e-3, FINISHED).peak == 2e-3


@pytest.fixture
def cells(tmp_path):
    """Two sizes; of width 32 three trials of a cell, one of twice the tokens, one of other data."""
    sweep = SimulatedSweep(tmp_path)
    for k, rate in enumerate((1e-3, 2e-3, 4e-3)):
        config = make_config(f"rate-{k}", 32, 400_000, optimizer__learning_rate=rate)
        sweep.add(config, {"optimizer.learning_rate": rate})
    sweep.add(make_config("longer", 32, 800_000), {"train.tokens": 800_000})
    sweep.add(make_config("wider", 64, 400_000), {"model.d_model": 64})
    other = make_config("other", 32, 400_000, data__validation_fraction=0.1)
    sweep.add(other, {"data.validation_fraction": 0.1})
    return sweep


def test_a_cell_is_one_size_one_budget_and_the_same_data(cells):
    names = [entry.name for entry in cell_of(cells, cells.entries[0])]
    assert names == ["rate-1", "rate-2"]


def history(entry, loss: float, share: float = 1.0) -> History:
    """Constant losses up to a share of the trial's steps."""
    found, table = History(), make_timetable(entry.config)
    for step in range(1, int(share * table.n_steps) + 1):
        found.add({"step": step, "tokens": table.tokens_before(step), "loss": loss})
    return found


def write(sweep, entry, loss: float, share: float = 1.0) -> None:
    run, table = sweep.run(entry.name), make_timetable(entry.config)
    run.path.mkdir(parents=True)
    with run.metrics.open("w") as file:
        for step in range(1, int(share * table.n_steps) + 1):
            record = {"step": step, "tokens": table.tokens_before(step), "loss": loss}
            file.write(json.dumps(record) + "\n")


def test_halving_keeps_the_best_third_that_came_so_far(cells):
    entry, second, third = cells.entries[:3]
    half = make_timetable(entry.config).n_steps // 2

    def verdict(loss: float) -> str:
        rule = Asha(cells, entry)
        assert rule.due(half)
        return rule.verdict(half, history(entry, loss, 0.5))

    assert verdict(3.0) == ""  # the first one goes on
    write(cells, second, 2.0, share=0.1)
    assert verdict(3.0) == ""  # another has not come to the rung
    write(cells, third, 2.0, share=0.4)
    assert verdict(1.9) == ""
    assert "number 2 of 2 of its cell, the best 1 go on" in verdict(2.1)
    stop = read_stop(cells, entry)
    assert stop is not None
    assert (stop.rule, stop.step, stop.best) == ("asha", half, None)


def test_a_rule_is_asked_once_at_each_share_also_when_several_are_passed(cells):
    rule = Asha(cells, cells.entries[0])
    n_steps = rule.timetable.n_steps
    asked = [rule.due(step) for step in range(1, n_steps + 1)]
    assert sum(asked) == 2
    assert asked.index(True) + 1 == math.ceil(n_steps / 9)
    again = Asha(cells, cells.entries[0])
    assert again.due(n_steps // 2)
    assert again.share == pytest.approx(1 / 3)
    assert not again.due(n_steps // 2 + 1)


def test_the_loss_at_a_rung_is_that_of_the_steps_before_it(cells):
    entry = cells.entries[0]
    found, table = History(), make_timetable(entry.config)
    for step in range(1, table.n_steps + 1):
        tokens = table.tokens_before(step)
        found.add({"step": step, "tokens": tokens, "loss": float(tokens)})
    rung = table.n_tokens / 3
    assert rung_loss(found, rung) == pytest.approx(0.95 * rung, rel=0.01)
    assert rung_loss(found, 1.01 * table.n_tokens) is None


def note(sweep, entry) -> None:
    stop = Stop("hopeless", entry.fingerprint, 1, 1, 0.5, 3.0, 2.9, 3.1, 2.8, "best")
    sweep.run(entry.name).path.mkdir(parents=True, exist_ok=True)
    (sweep.run(entry.name).path / "stopped.json").write_text(json.dumps(vars(stop)))
    outcome = {"state": "stopped", "message": "", "attempts": 1}
    (sweep.run(entry.name).path / "outcome.json").write_text(json.dumps(outcome))


def test_a_trial_that_was_stopped_once_and_a_trunk_are_trained_to_the_end(cells):
    first, second = cells.entries[:2]
    assert make_rule("hopeless", cells, first, {}) is not None
    note(cells, first)
    assert make_rule("hopeless", cells, first, {}) is None
    cells.add(make_config("branch", 32, 500_000), {}, trunk=second.fingerprint)
    assert not can_be_stopped(cells, second)


def test_the_sample_is_a_share_of_the_stopped_that_the_seed_decides(cells):
    assert sample(cells, 0.5, 0) == []
    for entry in cells.entries[:5]:
        note(cells, entry)
    assert len(sample(cells, 0.01, 0)) == 1
    chosen = sample(cells, 0.4, 0)
    assert len(chosen) == 2
    assert chosen == sample(cells, 0.4, 0)
    assert {tuple(sample(cells, 0.4, seed)) for seed in range(10)} != {tuple(chosen)}
    cells.run(chosen[0]).result.write_text("{}")  # it is done
    assert sample(cells, 0.4, 0) == chosen[1:]


def test_what_cannot_be_stopped_is_refused(tmp_path, capsys):
    run = ["sweep", "run", str(tmp_path / "none.py")]
    assert main([*run, "--launcher", "packed", "--stop-hopeless"]) == 2
    assert "stopping one would save nothing; use --launcher local" in capsys.readouterr().err
    assert main([*run, "--finish-sample", "2"]) == 2
    assert "--finish-sample 2; allowed: a share from 0 to 1" in capsys.readouterr().err
    assert main([*run, "--only", "seed=1", "--finish-sample", "0.5"]) == 2
    assert "draws from all stopped trials" in capsys.readouterr().err
    assert main([*run, "--launcher", "slurm", "--finish-sample", "0.5"]) == 2
    assert "waits for all trials, and --launcher slurm does not" in capsys.readouterr().err
