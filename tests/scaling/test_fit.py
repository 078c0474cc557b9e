"""Fits: planted laws come back, the minimum is the global one, and it is quick."""

import time

import numpy as np
import pytest
import scipy.optimize
from planted_laws import SYMBOLS, TRUTH, formula, variants

from gpt_jax.scaling.catalog import LAWS, build_law
from gpt_jax.scaling.fit import extrapolate, fit_law
from gpt_jax.scaling.minimise import huber, minimise
from gpt_jax.scaling.table import RunTable, make_table


def planted(name: str, irreducible: bool) -> RunTable:
    rng = np.random.default_rng(3)

    def draw(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), 80))

    columns = {
        "n_params": draw(1e6, 1e10),
        "n_tokens": draw(1e8, 1e12),
        "steps_min": draw(1e2, 1e6),
        "unique_tokens": draw(1e8, 3e11),
        "loss": draw(2.0, 5.0),
    }
    runs = make_table(**columns)
    return make_table(**columns | {LAWS[name].target: formula(name, SYMBOLS, runs, irreducible)})


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "irreducible"), variants())
def test_planted_law_is_recovered_to_six_digits(name, irreducible):
    fit = fit_law(LAWS[name], planted(name, irreducible), irreducible=irreducible)
    for symbol, value in fit.parameters.items():
        assert value == pytest.approx(SYMBOLS[symbol], rel=1e-6), symbol


@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_minimum_is_not_beaten_by_many_starts_of_another_solver(scattered, delta):
    """scipy's BFGS with exact gradients from 60 random starts never gets lower."""
    fit = fit_law(LAWS["chinchilla-parametric"], scattered(40, 0.02, 5), delta=delta)
    problem, law = fit.problem, fit.law

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        predicted, jacobian = law.log_loss(theta[None], problem.x)
        residual = predicted[0] - problem.log_loss
        return float(huber(residual, delta).sum()), jacobian[0] @ np.clip(residual, -delta, delta)

    rng = np.random.default_rng(0)
    lowest = min(
        scipy.optimize.minimize(objective, start, jac=True, method="BFGS").fun
        for start in fit.theta + rng.normal(0, [1, 0.3, 1, 0.3, 1], (60, 5))
        if np.isfinite(objective(start)[0])
    )
    assert fit.objective <= lowest * (1 + 1e-9)
    assert fit.objective == pytest.approx(objective(fit.theta)[0], rel=1e-12)


def hard(kind: str, name: str, seed: int) -> RunTable:
    """Few runs, large errors, outliers, no irreducible loss, a short range: valleys and bounds."""
    rng = np.random.default_rng(seed)
    n_runs = {"few": 6, "noisy": 40}.get(kind, 30)

    def draw(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), n_runs))

    largest = 3e8 if kind == "short" else 1e10
    runs = make_table(
        n_params=draw(1e8 if kind == "short" else 1e7, largest),
        n_tokens=draw(1e9, 1e12),
        steps_min=draw(1e3, 1e6),
        loss=draw(2, 5),
    )
    equal = {"alpha": 0.5, "beta": 0.5, "A": 3000.0, "B": 60000.0} if kind == "equal" else {}
    loss = formula(name, SYMBOLS | equal, runs, kind != "none")
    loss *= np.exp({"few": 0.05, "noisy": 0.15}.get(kind, 0.01) * rng.standard_normal(n_runs))
    if kind == "outliers":
        loss[:4] *= [1.5, 0.7, 2, 1.3]
    return make_table(**runs.quantities | {"loss": loss})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["few", "noisy", "short", "none", "outliers", "equal"])
@pytest.mark.parametrize(
    "name", ["chinchilla-parametric", "compute-power", "kaplan-nd", "kaplan-ns"]
)
def test_minimum_of_hard_data_is_not_beaten_by_brute_force(name, kind):
    """scipy's L-BFGS-B from 40 starts around ours and 40 of the law's, with the same bounds."""
    for seed, delta in [(0, 1e-3), (1, np.inf), (2, 1e-3)]:
        fit = fit_law(LAWS[name], hard(kind, name, seed), irreducible=True, delta=delta)
        problem, law = fit.problem, fit.law
        low, high = law.bounds.T

        def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
            predicted, jacobian = law.log_loss(theta[None], problem.x)  # noqa: B023
            residual = predicted[0] - problem.log_loss  # noqa: B023
            slope = jacobian[0] @ np.clip(residual, -delta, delta)  # noqa: B023
            scale = fit.objective  # noqa: B023
            return float(huber(residual, delta).sum()) / scale, slope / scale  # noqa: B023

        rng = np.random.default_rng(seed)
        own = law.starts(problem.x, np.exp(problem.log_loss))
        starts = [fit.theta + rng.normal(0, 1.5, low.size) for _ in range(40)]
        starts += list(own[rng.choice(len(own), 40)])
        lowest = min(
            scipy.optimize.minimize(
                objective,
                np.clip(start, low + 1e-9, high - 1e-9),
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(low, high, strict=True)),
                options={"maxiter": 3000, "ftol": 1e-13, "gtol": 1e-9},
            ).fun
            for start in starts
        )
        assert lowest > 1 - 1e-7


def test_flat_valleys_are_followed_to_their_end():
    """Large errors drive Kaplan's L(N, D) to a bound; 400 steps stopped 2e-4 above the minimum."""
    fit = fit_law(LAWS["kaplan-nd"], hard("noisy", "kaplan-nd", 2), irreducible=True, delta=1e-3)
    starts = fit.law.starts(fit.problem.x, np.exp(fit.problem.log_loss))
    longest = fit.problem.minimise(starts[::4], 3000)
    assert fit.objective <= longest.objective.min() * (1 + 1e-8)


def test_huber_fit_shrugs_off_a_broken_run_and_squares_do_not(scattered):
    runs = scattered(60, 0.0)
    loss = runs["loss"].copy()
    loss[7] *= 1.5
    broken = make_table(n_params=runs["n_params"], n_tokens=runs["n_tokens"], loss=loss)
    robust = fit_law(LAWS["chinchilla-parametric"], broken).parameters
    squares = fit_law(LAWS["chinchilla-parametric"], broken, delta=np.inf).parameters
    assert abs(robust["E"] - TRUTH["E"]) < 0.005
    assert abs(squares["E"] - TRUTH["E"]) > 10 * abs(robust["E"] - TRUTH["E"])


def test_fit_of_250_runs_takes_under_two_seconds(scattered):
    runs = scattered(250, 0.01)
    start = time.process_time()
    fit_law(LAWS["chinchilla-parametric"], runs)
    assert time.process_time() - start < 2


def test_weights_are_repetitions(scattered):
    """A run of weight 3 counts as three equal runs: what the bootstrap builds on."""
    runs = scattered(20, 0.02)
    law = build_law(LAWS["chinchilla-parametric"], runs, None)
    x = {v: np.log(runs[v]) for v in law.variables}
    times = np.random.default_rng(0).integers(0, 4, 20)
    start = fit_law(LAWS["chinchilla-parametric"], runs).theta[None]
    weighted = minimise(law, x, np.log(runs["loss"]), start, np.inf, weights=times.astype(float))
    index = np.repeat(np.arange(20), times)
    repeated_x = {k: v[index] for k, v in x.items()}
    repeated = minimise(law, repeated_x, np.log(runs["loss"][index]), start, np.inf)
    np.testing.assert_allclose(weighted.theta, repeated.theta, rtol=1e-6)


def test_too_few_runs_are_refused(scattered):
    with pytest.raises(ValueError, match=r"5 parameters .* 4 usable runs"):
        fit_law(LAWS["chinchilla-parametric"], scattered(4))


def test_extrapolation_never_sees_the_dearest_runs(scattered):
    """Spoiling the dearest runs changes the error, not the prediction."""
    runs = scattered(60, 0.001)
    order = np.argsort(runs["flops"])
    loss = runs["loss"].copy()
    loss[order[-6:]] *= 1.1
    spoiled = make_table(n_params=runs["n_params"], n_tokens=runs["n_tokens"], loss=loss)
    clean = extrapolate(fit_law(LAWS["chinchilla-parametric"], runs))
    broken = extrapolate(fit_law(LAWS["chinchilla-parametric"], spoiled))
    assert clean is not None
    assert broken is not None
    assert clean.n_held_out == 6
    assert clean.mean_error < 0.005 < 0.05 < broken.mean_error
    np.testing.assert_allclose(clean.predicted, broken.predicted, rtol=1e-6)
