"""Sections of the page, of planted laws: comparison, next runs, chain, stops, steps to a loss."""

import contextlib
import csv
import io
import json
import math

import numpy as np
import pytest
from simulated_sweep import MULTIPLIER, TRUTH, make_config, recipes_sweep
from simulated_sweep import SimulatedSweep as Simulated

from gpt_jax.cli import main
from gpt_jax.cost import flops
from gpt_jax.scaling.compare import COSTS
from gpt_jax.scaling.table import read_runs, with_values
from gpt_jax.sweep import store
from gpt_jax.sweep.sections import make_sections
from gpt_jax.sweep.stopped import Stopped, StoppedTrial, stopped_trials
from gpt_jax.sweep.stopping import Stop
from gpt_jax.sweep.table import gather
from gpt_jax.sweep.to_loss import to_loss


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The sweep of two recipes, and what `sweep report --to-loss 2.9` prints. Figures of runs and
    laws, and comparisons by tokens and seconds, are tested elsewhere and left out."""
    sweep = recipes_sweep(tmp_path_factory.mktemp("recipes"))
    shown = io.StringIO()
    command = ["sweep", "report", str(sweep.path), "--workdir", str(sweep.path), "--to-loss", "2.9"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setattr(store.SweepDirectory, "open", staticmethod(lambda path: sweep))
        patch.setattr("gpt_jax.sweep.figures.draw_sweep", lambda *_: [])
        patch.setattr("gpt_jax.scaling.plots.draw_all", lambda *_: [])
        for kind in ("tokens", "seconds"):
            patch.delitem(COSTS, kind)
        assert main([*command, "--laws", "compute-power", "--bootstrap", "50"]) == 0
    return sweep, shown.getvalue()


@pytest.fixture(scope="module")
def report(study):
    return study[0].path / "report"


def read(report, name):
    return json.loads((report / f"{name}.json").read_text())


def test_two_recipes_are_compared(report):
    target = read(report, "compare-optimizer")["costs"]["compute"]["target"]
    low, high = target["intervals"]["95"]
    assert low < MULTIPLIER < high
    assert high / low < 1.5
    assert (report / "figures" / "compare-optimizer" / "compare-compute.svg").is_file()


def test_missing_trials_are_ranked(report):
    document = read(report, "next")
    assert {run["run"] for run in document["runs"]} <= {"adamw-3e12-64-0", "muon-3e12-64-0"}
    assert document["target_flops"] == pytest.approx(4 * 2.7e12, rel=0.01)


def test_scores_are_chained_to_the_loss(report):
    (chain,) = read(report, "chain")["chains"]
    assert chain["task"] == "arc_easy"
    assert len(chain["runs"]) == 29
    loss = chain["loss"]["value"]
    planted = 0.25 + 0.75 / (1 + math.exp(3.0 * (loss - 2.6)))
    assert chain["score"]["value"] == pytest.approx(planted, abs=0.03)


def test_stops_say_what_they_saved_and_how_often_they_were_wrong(study):
    sweep, shown = study
    document = read(sweep.path / "report", "stopped")
    (waiting,) = [e for e in sweep.entries if e.name == "adamw-9e11-32-0"]
    cost = flops.training_flops(waiting.config.model, waiting.config.train.tokens, "exact")
    assert document["flops_saved"] == pytest.approx(0.7 * cost, rel=0.01)  # the other was finished
    assert (document["finished"], document["wrong"]) == (1, 0)
    assert "wrong in 0 of the 1 that were finished: 0%, 95% [0%, 98%]" in shown


def test_the_share_of_wrong_stops_has_the_textbook_interval():
    """Clopper and Pearson's 95% limits for 2 of 20: 0.0123 and 0.3170."""
    stop = Stop("hopeless", "f", 1, 1, 0.5, 3.0, 2.9, 3.1, 2.8, "best")
    trials = tuple(StoppedTrial(str(k), stop, 1.0, 2.0, k < 2) for k in range(20))
    assert Stopped(trials, 20.0).interval() == pytest.approx((0.0123, 0.3170), abs=1e-4)


def test_a_stop_by_halving_is_wrong_by_the_trials_of_its_cell(tmp_path):
    """It beats the other of its size; one of another size and budget has a lower loss than both."""
    sweep = Simulated(tmp_path)
    halved, other, larger = (
        sweep.add(make_config(name, width, tokens), {"model.d_model": width})
        for name, width, tokens in (("a", 32, 400_000), ("b", 32, 400_000), ("c", 96, 4_000_000))
    )
    losses = [sweep.finish(halved), sweep.finish(other, excess=0.2), sweep.finish(larger)]
    assert losses[2] < losses[0] < losses[1]
    empty = dict.fromkeys(("predicted", "low", "high", "best"))
    stop = Stop("asha", halved.fingerprint, 10, 100, 1 / 3, **empty, best_run="")
    (sweep.run("a").path / "stopped.json").write_text(json.dumps(vars(stop)))
    found = stopped_trials(gather(sweep))
    assert found is not None
    assert found.n_wrong == 1


def test_what_was_stopped_is_left_out_of_fits_and_said(report):
    table = report / "runs.csv"
    runs = with_values(read_runs(table), ["loss"])
    assert "3 rows without loss left out; 1 of these stopped early" in runs.notes[-1]
    assert "adamw-9e11-32-0" not in runs.labels["run"]
    with table.open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["run"] == "adamw-9e11-32-0"]
    assert (row["state"], row["loss"], row["predicted_loss"]) == ("stopped", "", "3.0")


def crossing(width: int, loss: float) -> float:
    """Tokens at which the planted law has the loss."""
    t, n = TRUTH, flops.count_parameters(make_config("", width, 1).model).n_params
    return (t["B"] / (loss - t["E"] - t["A"] / n ** t["alpha"])) ** (1 / t["beta"])


def test_tokens_flops_and_seconds_to_a_loss(tmp_path):
    """Three seeds of two sizes, validated often: the planted crossing is within the interval."""
    sweep = Simulated(tmp_path)
    for width in (32, 96):
        for seed in range(3):
            config = make_config(f"{width}-{seed}", width, 2_000_000, seed=seed)
            sweep.finish(sweep.add(config, {"model.d_model": width, "seed": seed}), validations=40)
    never = sweep.add(make_config("16-0", 16, 50_000), {"model.d_model": 16, "seed": 0})
    sweep.finish(never, validations=4)
    found = {setting.name: setting for setting in to_loss(gather(sweep), 2.9)}
    for width in (32, 96):
        setting = found[f"d_model {width}"]
        truth, (low, high) = crossing(width, 2.9), setting.interval("n_tokens")
        assert low < truth < high
        assert setting.mean("n_tokens") == pytest.approx(truth, rel=0.1)
        per_token = flops.training_flops_per_token(make_config("", width, 1).model, "exact")
        assert setting.mean("flops") == pytest.approx(per_token * setting.mean("n_tokens"))
        # The simulation trains at 4e10 FLOP/s.
        assert setting.mean("seconds") == pytest.approx(setting.mean("flops") / 4e10, rel=0.01)
    logs = np.log([run.n_tokens for run in found["d_model 32"].reached])
    half = 4.302653 * logs.std(ddof=1) / 3**0.5  # Student's t, two degrees of freedom
    assert found["d_model 32"].interval("n_tokens") == pytest.approx(
        (math.exp(logs.mean() - half), math.exp(logs.mean() + half)), rel=1e-5
    )
    assert not found["d_model 16"].reached
    assert found["d_model 16"].never[0].startswith("16-0 (done, lowest ")


def test_the_page_has_them_all(study, report):
    shown, page = study[1], (report / "index.html").read_text()
    assert "1 stopped early" in shown
    assert "never: adamw-9e11-32-0 (stopped early, never validated)" in shown
    assert "1 trial stopped early, as not the best of its settings, left out" in page
    for title in ("Steps to loss", "Stopped early", "Compared: optimizer", "Next runs", "scores"):
        assert title in page
    assert read(report, "to-loss")["loss"] == 2.9


def test_a_loss_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--to-loss -1; allowed: a loss above 0"):
        make_sections([], [], tmp_path, -1.0, 0)
