"""Intervals cover the planted truth as often as they say, and quickly enough."""

import time

import numpy as np
import pytest
from planted_laws import TRUTH, chinchilla_loss, optimal_size

from gpt_jax.scaling.answers import for_compute
from gpt_jax.scaling.catalog import LAWS
from gpt_jax.scaling.fit import LawFit, clusters, estimate_uncertainty, fit_frontier, fit_law
from gpt_jax.scaling.table import RunTable, make_table
from gpt_jax.scaling.uncertainty import bootstrap, percentiles, profile

NOMINAL = np.array([0.80, 0.95])


def covered(fit: LawFit, truth: dict[str, float], n_refits: int = 0) -> np.ndarray:
    """(methods, symbols, levels): whether the interval holds the truth; an open edge is far."""
    found = estimate_uncertainty(fit, n_refits, 0)
    methods = [found.profile, found.bootstrap] if n_refits else [found.profile]
    return np.array(
        [
            [
                (np.nan_to_num(m[s][:, 0], nan=-np.inf) <= v)
                & (v <= np.nan_to_num(m[s][:, 1], nan=np.inf))
                for s, v in truth.items()
            ]
            for m in methods
        ]
    )


def compute_laws(studies: int, irreducible: bool) -> np.ndarray:
    """(symbols, levels): how often profile intervals of L(C) hold the truth, 25 runs, 1% errors."""
    compute = np.geomspace(1e17, 1e22, 25)
    truth = {"a": 900.0, "b": -0.15} | ({"c": 1.2} if irreducible else {})
    mean = 900 * compute**-0.15 + truth.get("c", 0.0)
    hits = []
    for study in range(studies):
        noise = 0.01 * np.random.default_rng(study).standard_normal(25)
        runs = make_table(flops=compute, loss=mean * np.exp(noise))
        fit = fit_law(LAWS["compute-power"], runs, irreducible=irreducible)
        hits.append(covered(fit, truth)[0])
    return np.mean(hits, axis=0)


def test_profile_intervals_cover_at_their_nominal_rate():
    """200 studies: each symbol within 5 points, of which chance alone makes up to 2.8."""
    rates = compute_laws(200, True)
    np.testing.assert_allclose(rates, np.tile(NOMINAL, (3, 1)), atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("irreducible", [False, True])
def test_profile_intervals_cover_closely(irreducible):
    """2000 studies, of which chance makes 0.9 points."""
    rates = compute_laws(2000, irreducible)
    np.testing.assert_allclose(rates, np.tile(NOMINAL, (len(rates), 1)), atol=0.025)


@pytest.mark.slow
@pytest.mark.parametrize(("delta", "n_runs"), [(1e-3, 20), (1e-3, 60), (np.inf, 20), (np.inf, 60)])
def test_intervals_of_approach_3_cover_at_their_nominal_rate(scattered, delta, n_runs):
    """1000 studies with 1% errors: every symbol, and the exponent of the optimum, within 5 points.

    Chance makes 1.3 points of that.
    """
    alpha, beta = TRUTH["alpha"], TRUTH["beta"]
    truth = TRUTH | {"a": beta / (alpha + beta)}
    law, hits = LAWS["chinchilla-parametric"], []
    for study in range(1000):
        fit = fit_law(law, scattered(n_runs, 0.01, 10_000 + study), delta=delta)
        hits.append(covered(fit, truth)[0])
    rates = np.mean(hits, axis=0)
    np.testing.assert_allclose(rates, np.tile(NOMINAL, (len(truth), 1)), atol=0.05)


def uneven_laws(kind: str, studies: int) -> np.ndarray:
    """(levels): how often bootstrap intervals of an exponent hold the truth.

    60 runs whose errors are four times as large at both ends of the range, or one in twenty of
    which is an outlier of eight times the usual error.
    """
    compute, hits = np.geomspace(1e17, 1e22, 60), []
    ends = 0.005 * (1 + 3 * np.linspace(-1, 1, 60) ** 2)
    size = {"unequal": ends, "outliers": np.full(60, 0.005)}[kind]
    for study in range(studies):
        rng = np.random.default_rng(study)
        noise = size * rng.standard_normal(60)
        noise *= np.where((rng.random(60) < 0.05) & (kind == "outliers"), 8, 1)
        runs = make_table(flops=compute, loss=50 * compute**-0.07 * np.exp(noise))
        fit = fit_law(LAWS["compute-power"], runs, irreducible=False)
        refits = bootstrap(fit.problem, fit.theta, np.arange(60), 120, study)
        low, high = percentiles(-np.exp(fit.law.log_symbols(refits)))[1].T
        hits.append((low <= -0.07) & (high >= -0.07))
    return np.mean(hits, axis=0)


@pytest.mark.parametrize("kind", ["unequal", "outliers"])
def test_intervals_hold_where_scatter_is_unequal(kind):
    """40 studies, of which chance makes 3.4 points at 95%, 6.3 at 80%."""
    rates = uneven_laws(kind, 40)
    assert rates[0] > 0.6
    assert rates[1] > 0.85


CHINCHILLA_SCATTER = (0.0103, 0.0051, 0.0061)
"""Residuals of Chinchilla's own points, by thirds from few tokens to many."""


@pytest.mark.slow
def test_intervals_of_approach_3_hold_under_chinchillas_own_scatter():
    """100 studies of 240 runs: printed intervals hold the truth, the profile's less often."""
    truth = TRUTH | {"a": TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])}
    hits = []
    for study in range(100):
        rng = np.random.default_rng(study)
        n = np.exp(rng.uniform(np.log(5e7), np.log(1.5e10), 240))
        d = np.sort(np.exp(rng.uniform(np.log(1e9), np.log(3e11), 240)))
        noise = np.repeat(CHINCHILLA_SCATTER, 80) * rng.standard_normal(240)
        runs = make_table(n_params=n, n_tokens=d, loss=chinchilla_loss(n, d) * np.exp(noise))
        hits.append(covered(fit_law(LAWS["chinchilla-parametric"], runs), truth, 200))
    profiled, resampled = np.mean(hits, axis=0)
    assert resampled[:, 1].min() > 0.9
    assert resampled[:, 0].min() > 0.72
    assert profiled[:, 1].mean() < resampled[:, 1].mean()


@pytest.mark.slow
def test_answers_cover_at_their_nominal_rate(scattered):
    """The best size and its loss at a compute, by bootstrap of 250 runs."""
    best = optimal_size(1e22)
    truth = {"n_params": best, "loss": float(chinchilla_loss(best, 1e22 / 6 / best))}
    law, hits = LAWS["chinchilla-parametric"], []
    for study in range(300):
        fit = fit_law(law, scattered(250, 0.01, 10_000 + study))
        frontier = fit_frontier(fit, estimate_uncertainty(fit, 300, study).refits, 6.0)
        assert frontier is not None
        values = for_compute(frontier, 1e22).values
        hits.append(
            [
                [low <= v <= high for low, high in values[k].intervals.values()]
                for k, v in truth.items()
            ]
        )
    np.testing.assert_allclose(np.mean(hits, axis=0), np.tile(NOMINAL, (2, 1)), atol=0.05)


def test_profile_of_a_linear_law_is_students_interval():
    """log L = log a + b log C is linear regression, whose interval is known in closed form."""
    from scipy.stats import linregress, t

    compute = np.geomspace(1e17, 1e20, 9)
    noise = 0.02 * np.random.default_rng(1).standard_normal(9)
    loss = 50 * compute**-0.07 * np.exp(noise)
    fit = fit_law(LAWS["compute-power"], make_table(flops=compute, loss=loss), irreducible=False)
    line = linregress(np.log(compute), np.log(loss))
    half = t.ppf([0.9, 0.975], 7) * line.stderr
    expected = np.stack([line.slope - half, line.slope + half], 1)
    np.testing.assert_allclose(estimate_uncertainty(fit, 0, 0).profile["b"], expected, rtol=1e-3)


def test_profile_is_the_least_objective_at_its_edges(scattered):
    """At an edge, no refit with that parameter held does better than the interval claims."""
    fit = fit_law(LAWS["chinchilla-parametric"], scattered(40, 0.01, 2), delta=np.inf)
    edges = profile(fit.problem, fit.theta, lambda theta: theta[:, 3:4])[0]
    sigma2 = 2 * fit.objective / (40 - 5)
    for level, quantile in zip(edges, (1.306, 2.030), strict=True):
        for edge in level:
            best = np.inf
            for shift in np.linspace(-0.5, 0.5, 9):
                theta = fit.theta.copy()
                theta[3], theta[1] = edge, theta[1] + shift * 0.1
                best = min(best, held(fit, theta, 3))
            assert np.sqrt(2 * (best - fit.objective) / sigma2) == pytest.approx(quantile, rel=0.03)


def held(fit: LawFit, theta: np.ndarray, index: int) -> float:
    """The least objective with one parameter held, by scipy."""
    from scipy.optimize import minimize

    free = np.arange(theta.size) != index

    def objective(values: np.ndarray) -> float:
        full = theta.copy()
        full[free] = values
        return float(0.5 * (fit.problem.residuals(full) ** 2).sum())

    return float(minimize(objective, theta[free], method="BFGS").fun)


def test_exact_runs_give_points(scattered):
    fit = fit_law(LAWS["chinchilla-parametric"], scattered(30))
    edges = estimate_uncertainty(fit, 20, 0)
    np.testing.assert_allclose(edges.profile["alpha"], TRUTH["alpha"], rtol=1e-6)
    np.testing.assert_allclose(edges.bootstrap["alpha"], TRUTH["alpha"], rtol=1e-6)


def test_what_the_runs_do_not_hold_is_left_open():
    """Sizes far beyond what the data matter for: alpha has no upper edge."""
    rng = np.random.default_rng(0)
    n = rng.uniform(1e9, 1.2e9, 30)
    d = np.exp(rng.uniform(np.log(1e8), np.log(1e11), 30))
    loss = (1.8 + 2085 / d**0.37) * np.exp(0.01 * rng.standard_normal(30))
    fit = fit_law(LAWS["chinchilla-parametric"], make_table(n_params=n, n_tokens=d, loss=loss))
    assert np.isnan(estimate_uncertainty(fit, 0, 0).profile["alpha"]).any()


def test_an_irreducible_loss_that_may_be_none_has_its_interval_from_zero():
    compute = np.geomspace(1e17, 1e21, 15)
    noise = 0.01 * np.random.default_rng(0).standard_normal(15)
    runs = make_table(flops=compute, loss=900 * compute**-0.15 * np.exp(noise))
    fit = fit_law(LAWS["compute-power"], runs)
    found = estimate_uncertainty(fit, 100, 0)
    assert found.profile["c"][1, 0] == found.bootstrap["c"][1, 0] == 0
    assert found.profile["c"][1, 1] > 0


def test_as_few_runs_as_parameters_have_no_bootstrap(scattered):
    """Every resample would meet its runs exactly, and an interval of no width would look sure."""
    fit = fit_law(LAWS["chinchilla-parametric"], scattered(5, 0.01))
    found = estimate_uncertainty(fit, 50, 0)
    assert found.bootstrap == {}
    assert len(found.refits) == 0
    assert np.isnan(found.profile["alpha"]).all()


def test_bootstrap_keeps_rows_of_a_run_together(scattered):
    """Five identical rows a run say no more than one: the intervals are as wide."""
    runs = scattered(30, 0.01)
    names = tuple(str(i) for i in range(30))
    repeated = RunTable(
        {k: np.repeat(v, 5) for k, v in runs.quantities.items()},
        {"run": tuple(np.repeat(names, 5))},
        runs.conventions,
    )
    widths = []
    for table in (runs, repeated):
        fit = fit_law(LAWS["chinchilla-parametric"], table, delta=np.inf)
        refits = bootstrap(fit.problem, fit.theta, clusters(table), 300, 0)
        widths.append(refits[:, 3].std())
    assert widths[1] == pytest.approx(widths[0], rel=0.2)


def test_bootstrap_depends_on_the_seed_only(scattered):
    fit = fit_law(LAWS["chinchilla-parametric"], scattered(30, 0.01))
    draws = [bootstrap(fit.problem, fit.theta, np.arange(30), 20, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_bootstrap_is_fast_enough_for_4000_refits_in_half_a_minute(scattered):
    fit = fit_law(LAWS["chinchilla-parametric"], scattered(250, 0.01))
    start = time.process_time()
    bootstrap(fit.problem, fit.theta, np.arange(250), 400, 0)
    assert time.process_time() - start < 3
