"""Approaches 1 and 2: planted optima come back, edges and biases are said."""

import numpy as np
import pytest
from planted_laws import TRUTH, chinchilla_loss, optimal_size

from gpt_jax.scaling.catalog import LAWS
from gpt_jax.scaling.checks import optima_warnings
from gpt_jax.scaling.envelope import fit_envelope
from gpt_jax.scaling.fit import fit_law
from gpt_jax.scaling.isoflop import budgets, fit_isoflop, parabola_bias, runs_in_windows
from gpt_jax.scaling.optima import extrapolate_optima, power_law
from gpt_jax.scaling.table import RunTable, make_table
from gpt_jax.scaling.uncertainty import percentiles

TRUE_A = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
ISOFLOP, ENVELOPE = LAWS["chinchilla-isoflop"], LAWS["chinchilla-envelope"]


def exact_parabolas(sigma: float = 0.0, seed: int = 0) -> RunTable:
    """Profiles that are parabolas indeed, with minima at N = 0.1 C^0.48."""
    rng = np.random.default_rng(seed)
    compute = np.repeat(np.geomspace(1e18, 1e21, 4), 7)
    z = np.tile(np.linspace(-2, 1.5, 7), 4)
    n = 0.1 * compute**0.48 * np.exp(z)
    loss = (20 * compute**-0.05 + 0.03 * z**2) * (1 + sigma * rng.standard_normal(z.size))
    return make_table(n_params=n, n_tokens=compute / 6 / n, flops=compute, loss=loss)


@pytest.mark.smoke
def test_isoflop_recovers_planted_parabolas():
    fit = fit_isoflop(ISOFLOP, exact_parabolas(), 6.0, 0, 0)
    parameters = fit.parameters
    assert parameters["a"] == pytest.approx(0.48, rel=1e-6)
    assert parameters["b"] == pytest.approx(0.52, rel=1e-6)
    assert parameters["k_N"] == pytest.approx(0.1, rel=1e-6)
    assert fit.objective < 1e-20
    np.testing.assert_allclose(np.exp(fit.log_loss[0]), 20 * np.geomspace(1e18, 1e21, 4) ** -0.05)


def test_isoflop_intervals_cover_at_their_nominal_rate():
    hits = []
    for seed in range(120):
        low, high = (
            fit_isoflop(ISOFLOP, exact_parabolas(0.002, seed), 6.0, 120, seed).intervals["a"].T
        )
        hits.append((low <= 0.48) & (high >= 0.48))
    np.testing.assert_allclose(np.mean(hits, axis=0), [0.80, 0.95], atol=0.07)


@pytest.mark.slow
def test_isoflop_intervals_cover_where_profiles_are_no_parabolas(isoflop_grid):
    """Under Chinchilla's law, on grids wide enough to hold the curvature."""
    hits = []
    for seed in range(500):
        fit = fit_isoflop(ISOFLOP, isoflop_grid(0.004, seed, 0.25, 4.0), 6.0, 300, seed)
        low, high = fit.intervals["a"].T
        hits.append((low <= TRUE_A) & (high >= TRUE_A))
    np.testing.assert_allclose(np.mean(hits, axis=0), [0.80, 0.95], atol=0.07)


GRIDS = {
    "wide": {"sizes": np.geomspace(5e6, 9e8, 16), "computes": 1.25e16 * 2.0 ** np.arange(12)},
    "edges": {"sizes": np.geomspace(1e7, 5e8, 12), "computes": 1.25e16 * 2.0 ** np.arange(12)},
    "sparse": {"sizes": np.geomspace(1e7, 1e9, 12), "computes": np.geomspace(1e17, 1e20, 7)},
}
"""One grid of sizes for all budgets: optima near its lower edge at the cheap ones, near its upper
edge at the dear ones."""


def saturating_study(
    grid: str, alpha: float, beta: float, seed: int, sigma: float = 0.004
) -> RunTable:
    """A law of a = beta / (alpha + beta) whose losses saturate below the uniform loss of 9.5."""
    sizes, computes = GRIDS[grid]["sizes"], GRIDS[grid]["computes"]
    n, c = np.tile(sizes, computes.size), np.repeat(computes, sizes.size)
    middle_n = np.sqrt(sizes[0] * sizes[-1])
    middle_d = np.sqrt(computes[0] * computes[-1]) / 6 / middle_n
    total = alpha + beta
    law = 1.8 + 1.4 / total * (
        beta * (middle_n / n) ** alpha + alpha * (6 * n * middle_d / c) ** beta
    )
    loss = (law**-8 + 9.5**-8) ** (-1 / 8)
    loss *= np.exp(sigma * np.random.default_rng(seed).standard_normal(n.size))
    return make_table(n_params=n, n_tokens=c / 6 / n, flops=c, loss=loss)


@pytest.mark.parametrize(("grid", "alpha", "beta"), [("wide", 0.35, 0.35), ("edges", 0.35, 0.35)])
def test_far_sizes_and_edges_of_the_grid_do_not_decide_the_exponent(grid, alpha, beta):
    """All sizes of a budget would give 0.47 on the wide grid; edges kept by chance 0.49."""
    found, shares = [], []
    for seed in range(25):
        fit = fit_isoflop(ISOFLOP, saturating_study(grid, alpha, beta, seed), 6.0, 0, 0)
        found.append(fit.parameters["a"])
        shares.append(len(fit.profiles))
    assert np.mean(found) == pytest.approx(beta / (alpha + beta), abs=0.008)
    assert max(np.abs(np.array(found) - 0.5)) < (0.02 if grid == "wide" else 0.06)
    assert np.mean(shares) > 7


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("alpha", "beta"), [(0.35, 0.35), (0.3, 0.4)])
def test_isoflop_intervals_cover_on_one_grid_for_all_budgets(grid, alpha, beta):
    """400 studies, of which chance makes 1.1 (95%) and 2 points (80%)."""
    truth, hits, found = beta / (alpha + beta), [], []
    for seed in range(400):
        fit = fit_isoflop(ISOFLOP, saturating_study(grid, alpha, beta, seed), 6.0, 200, seed)
        low, high = fit.intervals["a"].T
        hits.append((low <= truth) & (truth <= high))
        found.append(fit.parameters["a"])
    assert np.mean(found) == pytest.approx(truth, abs=0.01)
    rates = np.mean(hits, axis=0)
    assert 0.73 < rates[0] < 0.93
    assert 0.91 < rates[1] < 0.99


def test_a_wide_window_takes_every_size_and_its_bias_is_said(isoflop_grid):
    """A wide grid above the optimum: a parabola through all of it moves, a local one does not."""
    runs = isoflop_grid(low=0.3, high=30.0)
    fit = fit_isoflop(ISOFLOP, runs, 6.0, 0, 0, window=1e3)
    law_fit = fit_law(LAWS["chinchilla-parametric"], runs)
    bias, line = parabola_bias(fit, law_fit)
    true = np.log([optimal_size(p.compute) for p in fit.profiles])
    np.testing.assert_allclose(fit.log_optimum[0] - true, bias, atol=1e-4)
    assert np.abs(bias).min() > 0.02
    assert fit.parameters["a"] - TRUE_A == pytest.approx(line[1], abs=1e-5)
    local = fit_isoflop(ISOFLOP, runs, 6.0, 0, 0)
    assert np.abs(local.log_optimum[0] - true).max() < 0.5 * np.abs(bias).min()
    assert len(runs_in_windows(local)) < len(runs)
    local_bias, _ = parabola_bias(local, fit_law(LAWS["chinchilla-parametric"], runs))
    np.testing.assert_allclose(local.log_optimum[0] - true, local_bias, atol=1e-4)


def test_window_must_be_a_factor():
    with pytest.raises(ValueError, match="--window 1; allowed: factors above 1"):
        fit_isoflop(ISOFLOP, exact_parabolas(), 6.0, 0, 0, window=1.0)


def test_parabolas_of_no_sure_curvature_are_warned_of(isoflop_grid):
    fit = fit_isoflop(ISOFLOP, isoflop_grid(0.01, 3, 0.5, 2.0), 6.0, 200, 0)
    assert any("parabola has no minimum inside" in w for w in optima_warnings(fit))


def test_budgets_without_a_minimum_inside_their_grid_are_left_out():
    """One budget's sizes all lie above its optimum, another is a hill."""
    runs = exact_parabolas()
    above = runs.take((runs["flops"] > 2e18) | (runs["n_params"] > 0.12 * 1e18**0.48))
    fit = fit_isoflop(ISOFLOP, above, 6.0, 0, 0)
    assert len(fit.profiles) == 3
    assert fit.parameters["a"] == pytest.approx(0.48, rel=1e-6)
    assert any("budget 1e+18 FLOPs left out" in note for note in fit.runs.notes)
    loss = np.where(runs["flops"] < 2e18, 6 - runs["loss"], runs["loss"])
    fit = fit_isoflop(ISOFLOP, make_table(**{**runs.quantities, "loss": loss}), 6.0, 0, 0)
    assert len(fit.profiles) == 3
    assert any("left out: " in note for note in fit.runs.notes)


def test_a_study_whose_optima_all_lie_outside_is_refused(isoflop_grid):
    with pytest.raises(ValueError, match=r"at 0 of 5 computes.*outside the grid"):
        fit_isoflop(ISOFLOP, isoflop_grid(low=1.5, high=20.0), 6.0, 0, 0)


def test_cubics_are_the_check_of_parabolas(isoflop_grid):
    """Without noise both find the planted exponent, cubics closer; noise in one budget is seen."""
    fit = fit_isoflop(ISOFLOP, isoflop_grid(low=0.1, high=10.0), 6.0, 0, 0, window=4.0)
    assert fit.check is not None
    assert fit.check.exponent == pytest.approx(TRUE_A, abs=2e-3)
    runs = exact_parabolas(0.0005)
    moved = np.where(runs["flops"] > 9e20, runs["n_params"] * 3, runs["n_params"])
    shifted = make_table(n_params=moved, flops=runs["flops"], loss=runs["loss"])
    warnings = optima_warnings(fit_isoflop(ISOFLOP, shifted, 6.0, 100, 0))
    assert any("minima scatter around the power law" in w for w in warnings)


def test_computes_that_form_no_budgets_are_refused():
    with pytest.raises(ValueError, match="IsoFLOP needs runs at a few computes"):
        budgets(np.geomspace(1e18, 1e19, 40))
    groups = budgets(np.array([1e18, 1.04e18, 4e18, 0.97e18, 4.1e18]))
    assert [sorted(g.tolist()) for g in groups] == [[0, 1, 3], [2, 4]]


def test_best_learning_rate_against_compute_is_recovered():
    compute = np.repeat(np.geomspace(1e16, 1e19, 4), 6)
    z = np.tile(np.linspace(-1.5, 1.5, 6), 4)
    rate = 0.5 * compute**-0.12 * np.exp(z)
    runs = make_table(flops=compute, learning_rate=rate, loss=9 * compute**-0.03 + 0.1 * z**2)
    fit = fit_isoflop(LAWS["learning-rate-power"], runs, 6.0, 50, 0)
    assert fit.parameters["k"] == pytest.approx(0.5, rel=1e-6)
    assert fit.parameters["m"] == pytest.approx(-0.12, rel=1e-6)


def test_power_law_leaves_missing_optima_out():
    x = np.array([1.0, 2.0, 3.0])
    y = np.array([[3.0, 5.0, 7.0], [np.nan, 5.0, 8.0], [np.nan, np.nan, np.nan]])
    line = power_law(x, y)
    np.testing.assert_allclose(line[:2], [[1, 2], [-1, 3]])
    assert np.isnan(line[2]).all()


def curves(
    label: bool = True, n_sizes: int = 25, point: float = 0.0, run: float = 0.0, seed: int = 0
) -> RunTable:
    """Curves of 30 points under TRUTH, with errors of every point and of every run."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(2e7, 8e9, n_sizes)
    n = np.repeat(sizes, 30)
    d = (sizes[:, None] * np.geomspace(2, 100, 30)).ravel()
    noise = point * rng.standard_normal(n.size) + np.repeat(run * rng.standard_normal(n_sizes), 30)
    table = make_table(n_params=n, n_tokens=d, loss=chinchilla_loss(n, d) * np.exp(noise))
    names = tuple(f"run{i}" for i in np.repeat(np.arange(n_sizes), 30))
    return RunTable(table.quantities, {"run": names} if label else {}, table.conventions)


@pytest.mark.parametrize("label", [True, False])
def test_envelope_recovers_the_exponent_from_curves(label):
    """Sizes are discrete, so the exponent comes back to about a hundredth."""
    fit = fit_envelope(ENVELOPE, curves(label=label), 6.0, 50, 0)
    assert fit.parameters["a"] == pytest.approx(TRUE_A, abs=0.01)
    compute = np.exp(fit.log_compute)
    best = np.array([optimal_size(c) for c in compute])
    assert np.abs(np.log(np.exp(fit.log_optimum[0]) / best)).max() < 0.3
    # Without noise the intervals hold nothing but the correction for discrete sizes.
    np.testing.assert_allclose(fit.intervals["a"], TRUE_A, atol=1e-3)


@pytest.mark.parametrize(("point", "run"), [(0.003, 0.0), (0.0, 0.003)])
def test_noise_does_not_shrink_the_envelopes_exponent(point, run):
    """Near curves swap by chance; choosing computes by the winner would cost 0.015 of a."""
    found = [
        fit_envelope(ENVELOPE, curves(point=point, run=run, seed=s), 6.0, 0, 0).parameters["a"]
        for s in range(40)
    ]
    assert np.mean(found) == pytest.approx(TRUE_A, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_sizes", "point", "run"), [(25, 0.003, 0), (25, 0, 0.003), (12, 0, 0.003)]
)
def test_envelope_intervals_cover_at_their_nominal_rate(n_sizes, point, run):
    """Of a, and of the best size and loss at a compute."""
    best = optimal_size(1e21)
    truth = np.array([TRUE_A, np.log(best), np.log(chinchilla_loss(best, 1e21 / 6 / best))])
    hits = []
    for seed in range(300):
        runs = curves(n_sizes=n_sizes, point=point, run=run, seed=seed)
        fit = fit_envelope(ENVELOPE, runs, 6.0, 200, seed)
        log_c = np.full(201, np.log(1e21))
        answers = [fit.frontier.size(log_c), fit.frontier.loss(log_c)]
        edges = np.stack([fit.intervals["a"], *(percentiles(v[1:, None])[0] for v in answers)])
        hits.append((edges[..., 0] <= truth[:, None]) & (truth[:, None] <= edges[..., 1]))
    np.testing.assert_allclose(np.mean(hits, axis=0), [[0.80, 0.95]] * 3, atol=0.05)


def test_envelope_uses_no_compute_where_the_edge_of_the_grid_wins():
    fit = fit_envelope(ENVELOPE, curves(), 6.0, 0, 0)
    sizes = np.unique(np.round(fit.log_optimum[0], 6))
    assert sizes.min() > np.log(2.01e7)
    assert sizes.max() < np.log(7.9e9)


def test_envelope_needs_curves():
    runs = make_table(n_params=[1e6, 2e6, 3e6], n_tokens=[1e8, 1e8, 1e8], loss=[3, 2, 1])
    with pytest.raises(ValueError, match=r"at least 3 curves .* found 0"):
        fit_envelope(ENVELOPE, runs, 6.0, 0, 0)


def test_extrapolation_predicts_the_dearest_budget_from_the_others():
    optimum, loss = extrapolate_optima(fit_isoflop(ISOFLOP, exact_parabolas(), 6.0, 0, 0)) or (
        None,
        None,
    )
    assert optimum is not None
    assert loss is not None
    assert (optimum.n_fitted, optimum.n_held_out) == (3, 1)
    assert optimum.ratio == pytest.approx(10)
    assert optimum.mean_error < 1e-6
    assert loss.mean_error < 1e-6
