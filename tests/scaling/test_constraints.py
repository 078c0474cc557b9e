"""Fits with parameters fixed, tied, bounded and shared, and other objectives, against scipy."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
from planted_laws import TRUTH, chinchilla_loss

from gpt_jax.scaling.catalog import LAWS
from gpt_jax.scaling.constraints import Constrained, Constraints
from gpt_jax.scaling.fit import LawFit, estimate_uncertainty, extrapolate, fit_law
from gpt_jax.scaling.table import RunTable, make_table

LAW = LAWS["chinchilla-parametric"]
Values = dict[str, float]


def huber(residual: np.ndarray, delta: float) -> np.ndarray:
    size = np.abs(residual)
    return np.where(size < delta, size**2 / 2, delta * (size - delta / 2))


def law(t: Values, runs: RunTable) -> np.ndarray:
    return t["E"] + t["A"] / runs["n_params"] ** t["alpha"] + t["B"] / runs["n_tokens"] ** t["beta"]


def least(
    objective: Callable[[Values], float], start: Values, bounds: Values | None = None
) -> float:
    """The least objective that scipy finds over the logarithms of the parameters in `start`."""
    names = list(start)

    def of_logs(logs: np.ndarray) -> float:
        return objective(dict(zip(names, np.exp(logs), strict=True)))

    best = np.log(list(start.values()))
    limits = [tuple(np.log((bounds or {}).get(n, (1e-9, 1e9)))) for n in names]
    for _ in range(6):  # Nelder and Mead's simplex stalls: begun again where it ended
        options = {
            "maxiter": 20_000,
            "maxfev": 20_000,
            "xatol": 1e-11,
            "fatol": 1e-16,
            "adaptive": True,
        }
        found = scipy.optimize.minimize(
            of_logs, best, method="Nelder-Mead", bounds=limits, options=options
        )
        best = found.x
    return float(found.fun)


def squares(runs: RunTable, t: Values) -> float:
    return float(0.5 * (np.log(law(t, runs) / runs["loss"]) ** 2).sum())


def test_fixed_parameters_are_held_and_the_others_are_the_constrained_optimum(scattered):
    runs, held = scattered(40, 0.01, 1), {"E": 1.69, "alpha": 0.35}
    fit = fit_law(LAW, runs, delta=np.inf, constraints=Constraints(fixed=held))
    assert {k: fit.parameters[k] for k in held} == held
    free = {k: v for k, v in TRUTH.items() if k not in held}
    expected = least(lambda t: squares(runs, t | held), free)
    assert fit.objective == pytest.approx(expected, rel=1e-8)
    assert fit.objective == pytest.approx(squares(runs, fit.parameters), rel=1e-9)
    unconstrained = fit_law(LAW, runs, delta=np.inf)
    assert fit.objective > unconstrained.objective


def test_fixing_every_parameter_but_one_at_the_optimum_gives_the_optimum(scattered):
    runs = scattered(40, 0.01, 1)
    whole = fit_law(LAW, runs)
    held = {k: v for k, v in whole.parameters.items() if k != "beta"}
    fit = fit_law(LAW, runs, constraints=Constraints(fixed=held))
    assert fit.parameters["beta"] == pytest.approx(whole.parameters["beta"], rel=1e-6)
    assert fit.objective == pytest.approx(whole.objective, rel=1e-9)


def test_tied_exponents(scattered):
    runs = scattered(40, 0.01, 2)
    fit = fit_law(LAW, runs, constraints=Constraints(tied=[("alpha", "beta")]))
    assert fit.parameters["alpha"] == fit.parameters["beta"]
    free = {k: v for k, v in TRUTH.items() if k != "beta"}

    def objective(t: Values) -> float:
        residual = np.log(law(t | {"beta": t["alpha"]}, runs) / runs["loss"])
        return float(huber(residual, 1e-3).sum())

    assert fit.objective <= least(objective, free) * (1 + 1e-7)
    assert fit.objective == pytest.approx(objective(fit.parameters), rel=1e-9)
    found = estimate_uncertainty(fit, 20, 0)
    np.testing.assert_array_equal(found.bootstrap["alpha"], found.bootstrap["beta"])
    np.testing.assert_allclose(found.bootstrap["a"], 0.5)


def test_bounds_hold_and_are_reached(scattered):
    runs = scattered(40, 0.01, 3)
    limits = {"alpha": (0.1, 0.3)}
    fit = fit_law(LAW, runs, delta=np.inf, constraints=Constraints(bounds=limits))
    assert fit.parameters["alpha"] == pytest.approx(0.3, rel=1e-12)
    expected = least(lambda t: squares(runs, t), TRUTH | {"alpha": 0.29}, limits)
    assert fit.objective == pytest.approx(expected, rel=1e-7)


def two_corpora(sigma: float, seed: int = 0, n_runs: int = 30) -> RunTable:
    """Runs on two corpora under laws that share their exponents; E, A and B are each one's own."""
    rng = np.random.default_rng(seed)
    n = np.exp(rng.uniform(np.log(5e7), np.log(1.5e10), 2 * n_runs))
    d = np.exp(rng.uniform(np.log(1e9), np.log(3e11), 2 * n_runs))
    second = np.arange(2 * n_runs) >= n_runs
    loss = chinchilla_loss(n, d)
    other = 1.2 + 300 / n ** TRUTH["alpha"] + 3000 / d ** TRUTH["beta"]
    loss = np.where(second, other, loss) * np.exp(sigma * rng.standard_normal(n.size))
    runs = make_table(n_params=n, n_tokens=d, loss=loss)
    return RunTable(
        runs.quantities, {"corpus": tuple(np.where(second, "pile", "c4"))}, runs.conventions
    )


GROUPS = Constraints(group="corpus", shared=("alpha", "beta"))


def test_groups_share_what_is_shared(scattered):
    fit = fit_law(LAW, two_corpora(0.0), constraints=GROUPS)
    expected = {
        "A[c4]": 482.01,
        "E[c4]": 1.8172,
        "B[pile]": 3000.0,
        "E[pile]": 1.2,
        "alpha": 0.3478,
    }
    for name, value in expected.items():
        assert fit.parameters[name] == pytest.approx(value, rel=1e-6), name
    assert "alpha[c4]" not in fit.parameters
    assert len(fit.law.bounds) == 8


def test_groups_are_one_optimum(scattered):
    runs = two_corpora(0.01)
    fit = fit_law(LAW, runs, delta=np.inf, constraints=GROUPS)
    parts = [runs.take(np.array(runs.labels["corpus"]) == c) for c in ("c4", "pile")]
    own = [s + c for c in ("[c4]", "[pile]") for s in ("E", "A", "B")]
    start = fit.parameters

    def objective(t: Values) -> float:
        return sum(
            squares(part, {s: t[s + c] for s in ("E", "A", "B")} | {s: t[s] for s in GROUPS.shared})
            for part, c in zip(parts, ("[c4]", "[pile]"), strict=True)
        )

    rng = np.random.default_rng(0)
    nearby = {k: v * np.exp(0.01 * rng.standard_normal()) for k, v in start.items()}
    assert set(nearby) == {*own, "alpha", "beta"}
    assert fit.objective <= least(objective, nearby) * (1 + 1e-7)
    assert fit.objective == pytest.approx(objective(start), rel=1e-9)
    alone = [fit_law(LAW, part, delta=np.inf).objective for part in parts]
    assert fit.objective > sum(alone)
    assert extrapolate(fit) is not None


def test_one_parameter_of_one_group_can_be_fixed_and_tied():
    runs = two_corpora(0.0)
    held = Constraints(
        fixed={"E[pile]": 1.2}, tied=[("A[c4]", "A[pile]")], group="corpus", shared=("alpha",)
    )
    fit = fit_law(LAW, runs, constraints=held)
    assert fit.parameters["E[pile]"] == 1.2
    assert fit.parameters["A[c4]"] == fit.parameters["A[pile]"]
    assert isinstance(fit.law, Constrained)
    assert len(fit.law.bounds) == 7


def test_gradients_under_constraints_are_exact():
    runs = two_corpora(0.01)
    law_fit: LawFit = fit_law(LAW, runs, constraints=GROUPS)
    problem, theta = law_fit.problem, law_fit.theta[None]
    for compute in (problem.law.log_loss, problem.law.values):
        _, gradient = compute(theta, problem.x)
        for p in range(theta.shape[1]):
            step = np.zeros_like(theta)
            step[0, p] = 1e-6
            rise = compute(theta + step, problem.x)[0] - compute(theta - step, problem.x)[0]
            np.testing.assert_allclose(gradient[:, p], rise / 2e-6, atol=1e-7)


def test_weights_are_repetitions_of_rows(scattered):
    runs = scattered(20, 0.02)
    times = np.random.default_rng(0).integers(1, 4, 20)
    weighted = make_table(**runs.quantities | {"weight": times})
    index = np.repeat(np.arange(20), times)
    one = fit_law(LAW, weighted, weights="weight", delta=np.inf).parameters
    other = fit_law(LAW, runs.take(index), delta=np.inf).parameters
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    ("space", "delta", "asymmetry"),
    [("linear", np.inf, 1.0), ("linear", 0.01, 1.0), ("log", np.inf, 4.0), ("log", 0.005, 3.0)],
)
def test_objectives_are_what_they_say(scattered, space, delta, asymmetry):
    runs = scattered(40, 0.01, 4)
    fit = fit_law(LAW, runs, delta=delta, space=space, asymmetry=asymmetry)

    def objective(t: Values) -> float:
        predicted, measured = law(t, runs), runs["loss"]
        residual = predicted - measured if space == "linear" else np.log(predicted / measured)
        side = np.where(residual < 0, 1 / asymmetry, 1.0)
        return float((side * huber(residual, delta)).sum())

    assert fit.objective == pytest.approx(objective(fit.parameters), rel=1e-8)
    assert fit.objective <= least(objective, TRUTH) * (1 + 1e-7)


def test_runs_that_lie_above_weigh_less(scattered):
    """A third of the runs is undertuned by 3%: an asymmetry finds the law of the others."""
    runs = scattered(60, 0.0005, 5)
    spoiled = np.where(np.arange(60) % 3 == 0, 1.03, 1.0)
    table = make_table(**runs.quantities | {"loss": runs["loss"] * spoiled})
    even, uneven = (
        fit_law(LAW, table, delta=np.inf, asymmetry=k).predict(table) / runs["loss"]
        for k in (1.0, 100.0)
    )
    assert np.abs(even - 1).mean() > 4 * np.abs(uneven - 1).mean()


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(fixed={"gama": 1}), "parameters A, alpha, B, beta, E"),
        (Constraints(fixed={"alpha": -0.3}), "alpha is above 0 in this law"),
        (Constraints(fixed=TRUTH), "nothing is left to fit"),
        (Constraints(tied=[("alpha", "bet")]), "did you mean 'beta'"),
        (Constraints(bounds={"alpha": (0.5, 0.2)}), "LOW:HIGH with LOW below HIGH"),
        (Constraints(bounds={"alpha": (30.0, 40.0)}), "outside of what the law allows"),
        (Constraints(bounds={"alpha": (0.1, 0.2), "beta": (0.3, 0.4)}, tied=[("alpha", "beta")]),
         "nothing in common"),
        (Constraints(group="corpora"), "no such column"),
        (Constraints(group="corpus", shared=("gamma",)), "--shared gamma"),
        (Constraints(tied=[("alpha", "E")], fixed={"alpha": 0.3, "E": 1.0}), "at different values"),
    ],
)  # fmt: skip
def test_constraints_that_mean_nothing_are_refused(constraints, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        fit_law(LAW, two_corpora(0.01), constraints=constraints)


def test_an_irreducible_loss_that_is_named_is_there(scattered):
    """Kaplan's laws have none by default; fixed at 0 it is none again."""
    runs, entry = scattered(30, 0.01), LAWS["kaplan-n"]
    fit = fit_law(entry, runs, constraints=Constraints(fixed={"E": 1.0}))
    assert fit.parameters["E"] == 1.0
    none = fit_law(entry, runs, constraints=Constraints(fixed={"E": 0.0}))
    assert none.parameters["E"] == 0
    assert none.objective == pytest.approx(fit_law(entry, runs).objective, rel=1e-9)
