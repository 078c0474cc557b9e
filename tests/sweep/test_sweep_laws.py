"""Which laws a sweep gets, from which rows, and the figures of its runs."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from simulated_sweep import (
    BEST_RATE,
    TRUTH,
    SimulatedSweep,
    add_at,
    isoflop_sweep,
    learning_rate_sweep,
    make_config,
    trunks_sweep,
)

from gpt_jax.scaling.study import Options
from gpt_jax.sweep.figures import draw_hyperparameter, figures, hyperparameter_lines
from gpt_jax.sweep.laws import TRIED, best_settings, fit_laws, suitable
from gpt_jax.sweep.table import columns, gather, make_rows, write_runs

QUICK = Options(n_refits=20)
EXPONENT = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])


def fitted(sweep, laws=None):
    trials = gather(sweep)
    rows, path = make_rows("simulated", trials), sweep.path / "runs.csv"
    write_runs(path, rows, columns(trials))
    studies, not_fitted = fit_laws(path, trials, rows, laws, QUICK)
    return {study.entry.name: study for study in studies}, not_fitted


def test_a_grid_of_budgets_and_sizes_gets_all_approaches(tmp_path):
    studies, not_fitted = fitted(isoflop_sweep(tmp_path))
    assert studies.keys() == set(TRIED)
    assert not not_fitted
    found = studies["chinchilla-parametric"].size_exponent()
    assert found is not None
    low, high = found[1][-1]
    assert low < EXPONENT < high
    isoflop = studies["chinchilla-isoflop"]
    assert len(isoflop.optima.profiles) == 3  # the cheapest has its best in the grid's first step
    assert any("at the edge of the grid" in note for note in isoflop.runs.notes)


def test_a_law_of_compute_gets_the_best_runs(tmp_path):
    studies, _ = fitted(isoflop_sweep(tmp_path), ["compute-power"])
    runs = studies["compute-power"].runs
    order = np.argsort(runs["flops"])
    assert (np.diff(runs["loss"][order]) < 0).all()
    assert any("lie on the frontier" in note for note in runs.notes)


def test_curves_before_the_decay_are_for_the_envelope_alone(tmp_path):
    studies, not_fitted = fitted(trunks_sweep(tmp_path))
    assert set(studies["chinchilla-envelope"].runs.labels["cooled"]) == {"false"}
    assert len(studies["chinchilla-envelope"].runs) == 40
    assert set(studies["compute-power"].runs.labels["cooled"]) == {"true"}
    assert "2 values of n_tokens" in not_fitted["chinchilla-parametric"]


def test_a_law_of_size_gets_the_best_learning_rate(tmp_path):
    sweep = learning_rate_sweep(tmp_path)
    trials = gather(sweep)
    names, note = best_settings(trials)
    best = {width: BEST_RATE * 32 / width for width in (16, 32, 64)}
    assert names == {f"width-{w}-rate-{rate:.2e}" for w, rate in best.items()}
    assert note == "the best setting at each size and length: 3 of 20 runs"
    studies, not_fitted = fitted(sweep)
    assert studies.keys() == {"learning-rate-power"}
    assert len(studies["learning-rate-power"].runs) == 20
    assert "1 value of n_tokens" in not_fitted["chinchilla-parametric"]
    assert not_fitted["compute-power"] == "3 runs for 3 parameters; more are needed"


def test_seeds_are_kept_together(tmp_path):
    sweep = SimulatedSweep(tmp_path)
    for seed in (0, 1):
        for rate, excess in ((1e-3, 0.0), (1e-2, 0.5)):
            config = make_config(
                f"seed-{seed}-rate-{rate}", 16, 10_000, seed=seed, optimizer__learning_rate=rate
            )
            varied = {"optimizer.learning_rate": rate, "seed": seed}
            sweep.finish(sweep.add(config, varied), excess=excess)
    names, _ = best_settings(gather(sweep))
    assert names == {"seed-0-rate-0.001", "seed-1-rate-0.001"}


def test_nothing_done_is_said(tmp_path):
    sweep = SimulatedSweep(tmp_path)
    add_at(sweep, 1e11, 16)
    studies, not_fitted = fitted(sweep)
    assert not studies
    assert set(not_fitted.values()) == {"no trial is done yet"}
    trials = gather(sweep)
    assert figures(trials, make_rows("simulated", trials)) == {}


def test_unknown_laws_are_a_mistake_and_known_ones_without_place_are_not(tmp_path):
    sweep = isoflop_sweep(tmp_path)
    with pytest.raises(ValueError, match="did you mean 'chinchilla-isoflop'"):
        fitted(sweep, ["chinchila-isoflop"])
    studies, not_fitted = fitted(sweep, ["data-constrained"])
    assert not studies
    assert "unique_tokens" in not_fitted["data-constrained"]


def test_suitable_laws_follow_from_what_varies(tmp_path):
    sweep = SimulatedSweep(tmp_path)
    for width in (16, 24, 32, 48):
        sweep.finish(add_at(sweep, 1e11, width))
    assert suitable(gather(sweep)) == list(TRIED), "lengths differ with the size"
    ladder = SimulatedSweep(tmp_path / "ladder")
    for width in (16, 24, 32, 48):
        ladder.finish(ladder.add(make_config(f"{width}", width, 50_000), {"model.d_model": width}))
    assert suitable(gather(ladder)) == [*TRIED, "kaplan-n"]
    studies, _ = fitted(ladder)
    assert "kaplan-n" in studies


def test_the_learning_rate_figure_marks_each_lines_minimum(tmp_path):
    trials = gather(learning_rate_sweep(tmp_path))
    lines = hyperparameter_lines(trials, "optimizer.learning_rate")
    assert list(lines) == ["d_model 16", "d_model 32", "d_model 64"]
    assert [len(line) for line in lines.values()] == [7, 7, 6]
    assert hyperparameter_lines(trials, "model.d_model") == {}
    axes = Figure().add_subplot()
    draw_hyperparameter(axes, "optimizer.learning_rate", lines, trials)
    stars = [line for line in axes.lines if line.get_marker() == "*" and len(line.get_xdata())]
    found = [float(star.get_xdata()[0]) for star in stars]
    assert found == pytest.approx([2 * BEST_RATE, BEST_RATE, BEST_RATE / 2])
    (lost,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert lost.get_xdata() == pytest.approx([8 * BEST_RATE])
    assert axes.get_xscale() == "log"


def test_figures_are_those_the_runs_have_data_for(tmp_path):
    trials = gather(isoflop_sweep(tmp_path / "isoflop"))
    names = list(figures(trials, make_rows("isoflop", trials)))
    assert names == ["loss-curves", "final-loss-against-compute"]
    trials = gather(learning_rate_sweep(tmp_path / "rates"))
    names = list(figures(trials, make_rows("rates", trials)))
    assert names[-1] == "final-loss-against-learning-rate"
