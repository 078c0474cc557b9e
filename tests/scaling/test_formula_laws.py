"""Formulas in text, and the laws that are written as one: values, derivatives, planted truths."""

import csv
import gzip

import numpy as np
import pytest
import scipy.optimize
from planted_laws import FORMULAS

from gpt_jax.scaling.catalog import LAWS, build_law
from gpt_jax.scaling.constraints import log_variables
from gpt_jax.scaling.fit import estimate_uncertainty, fit_law, minimum
from gpt_jax.scaling.formula_law import formula_law
from gpt_jax.scaling.laws import symbols_of
from gpt_jax.scaling.table import RunTable, make_table
from gpt_jax.scaling.uncertainty import Problem

TRUTHS = {
    "over-training": {"E": 1.51, "a": 141.0, "b": 190.0, "eta": 0.121},
    "routed-experts": {
        "a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "E_start": 1.847, "E_max": 314.478,
    },
    "routed-parameters": {"a": -0.08, "b": -0.1, "c": 0.008, "d": 1.1},
    "vocabulary": {
        "A1": 300.0, "alpha1": 0.4, "A2": 30.0, "alpha2": 0.35, "B": 900.0, "beta": 0.37, "E": 5.53,
    },
    "farseer": {
        "a3": -0.021, "gamma": 0.169, "b3": 0.091, "a2": 88.01, "beta": -0.1, "b2": -5.287,
        "a1": -0.124, "alpha": 0.123, "b1": 0.424,
    },
}  # fmt: skip


def planted(name: str, n_runs: int = 80, sigma: float = 0.0, seed: int = 3) -> RunTable:
    """Runs under the law as its paper prints it, written out by hand."""
    rng, t = np.random.default_rng(seed), TRUTHS[name]

    def draw(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), n_runs))

    n, d, v = draw(2e7, 1e10), draw(1e9, 3e11), draw(1e6, 3e8)
    experts = np.where(rng.random(n_runs) < 0.2, 1.0, np.round(draw(2, 512)))
    total = n * np.where(experts == 1, 1, draw(1.5, 60))
    noise = np.exp(sigma * rng.standard_normal(n_runs))
    match name:
        case "over-training":
            m, c = d / n, 6 * n * d
            loss = t["E"] + (t["a"] * m ** t["eta"] + t["b"] * m ** -t["eta"]) * c ** -t["eta"]
        case "routed-experts":
            start = 1 / (1 / t["E_start"] - 1 / t["E_max"])
            e = np.log10(1 / (1 / (experts - 1 + start) + 1 / t["E_max"]))
            n10 = np.log10(n)
            loss = 10 ** (t["a"] * n10 + t["b"] * e + t["c"] * n10 * e + t["d"])
        case "routed-parameters":
            n10, r = np.log10(n), np.log10(total / n)
            loss = 10 ** (t["a"] * n10 + t["b"] * r + t["c"] * n10 * r + t["d"])
        case "vocabulary":
            sizes = t["A1"] / n ** t["alpha1"] + t["A2"] / v ** t["alpha2"]
            value = sizes + t["B"] / d ** t["beta"] - t["E"]
            return make_table(
                n_params_non_vocab=n, n_params_vocab=v, n_tokens=d,
                unigram_normalised_loss=value + np.log(noise),
            )  # fmt: skip
        case _:
            power = np.exp(t["a1"] * n ** t["alpha"] + t["b1"])
            factor = np.exp(t["a2"] * n ** t["beta"] + t["b2"])
            loss = np.exp(t["a3"] * n ** t["gamma"] + t["b3"]) + factor * d**-power
    columns = {
        "routed-experts": {"n_experts": experts},
        "routed-parameters": {"n_params_total": total},
    }
    return make_table(n_params=n, n_tokens=d, loss=loss * noise, **columns.get(name, {}))


@pytest.mark.parametrize("name", FORMULAS)
def test_planted_law_is_recovered(name):
    """Also the printed formula: the least objective is none at the parameters of the paper."""
    fit = fit_law(LAWS[name], planted(name, 120))
    assert fit.objective < 1e-17
    for symbol, value in TRUTHS[name].items():
        assert fit.parameters[symbol] == pytest.approx(value, rel=1e-4), symbol


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_exact(name):
    runs = planted(name)
    law = build_law(LAWS[name], runs, None)
    theta, x = law.from_symbols(TRUTHS[name])[None], log_variables(law, runs.quantities)
    np.testing.assert_allclose(symbols_of(law, theta)[0], [TRUTHS[name][s] for s in law.symbols])
    for compute in (law.values,) if name == "vocabulary" else (law.values, law.log_loss):
        _, gradient = compute(theta, x)
        for p in range(theta.shape[1]):
            step = np.zeros_like(theta)
            step[0, p] = 1e-6
            rise = compute(theta + step, x)[0] - compute(theta - step, x)[0]
            np.testing.assert_allclose(
                gradient[:, p], rise / 2e-6, atol=1e-6 * max(1, np.abs(gradient[:, p]).max())
            )


@pytest.mark.parametrize(
    ("router", "n_runs", "printed"),
    [
        ("S-Base", 58, (-0.0830, -0.1180, 0.0099, 1.1136)),
        ("RL-R", 59, (-0.0827, -0.1234, 0.0112, 1.1070)),
        ("Hash", 56, (-0.0874, -0.1384, 0.0126, 1.1595)),
    ],
)
def test_clarks_coefficients(shared_data, router, n_runs, printed):
    table = shared_data / "runs" / "clark2022_routing.csv.gz"
    if not table.is_file():
        pytest.skip("the table of Clark et al. is not here")
    with gzip.open(table, "rt") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["routing_frequency"], row["k"], row["seed"]) == ("0.5", "1", "42")
            and row["router_type"] in (router, "Dense")
        ]
    columns = {
        "n_params": "dense_parameter_count", "n_experts": "num_experts", "loss": "loss_validation"
    }  # fmt: skip
    runs = make_table(**{k: [float(row[v]) for row in rows] for k, v in columns.items()})
    fit = fit_law(LAWS["routed-experts"], runs)
    assert len(fit.runs) == n_runs
    for symbol, value in zip("abcd", printed, strict=True):
        assert fit.parameters[symbol] == pytest.approx(value, abs=6e-5), symbol


def test_a_formula_is_the_built_in_law(scattered):
    """The same optimum, intervals of the profile, and best size, from text."""
    runs = scattered(40, 0.01)
    built_in = fit_law(LAWS["chinchilla-parametric"], runs, delta=np.inf)
    law = formula_law("E + A*N**-alpha + B*D**-beta", "A>0,B>0,alpha>0,beta>0,E>0")
    problem = Problem(law, log_variables(law, runs.quantities), runs["loss"], np.inf)
    theta, objective = minimum(problem)
    assert objective == pytest.approx(built_in.objective, rel=1e-9)
    found = dict(zip(law.symbols, symbols_of(law, theta[None])[0], strict=True))
    assert found == pytest.approx({k: built_in.parameters[k] for k in found}, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("E + A*N**-alpha", "A>0,alpha>0,E>0"),
        ("E + (Nc/N)**alpha", "Nc>0,alpha>0,E>0"),
        ("E + A*exp(-k*log(N)**2)", "A>0,0<k<0.1,E"),
        ("c0 + c1*log(N) + c2*log(N)**2", "c0,c1,c2"),
        ("E + A / (1 + (N/n0)**s)", "E>0,A>0,n0>0,0<s<3"),
        ("top*sigmoid(k*(log10(N) - m))", "top>0,k<0,0<m<20"),
    ],
)
def test_formulas_of_many_shapes_find_the_least_squares(text, params):
    """scipy's least squares from 40 starts around ours and at random gets no lower."""
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(1e7), np.log(1e10), 40))
    loss = (1.8 + 300 * n**-0.3) * np.exp(0.01 * rng.standard_normal(40))
    law = formula_law(text, params)
    problem = Problem(law, {"n_params": np.log(n)}, loss, np.inf)
    theta, objective = minimum(problem)

    def residual(at: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.nan_to_num(problem.residuals(at), nan=1e3, posinf=1e3, neginf=-1e3)

    low, high = law.bounds.T
    starts = [theta + rng.normal(0, 0.3, theta.size) for _ in range(20)]
    starts += list(law.starts(problem.x, loss)[:20])
    lowest = min(
        scipy.optimize.least_squares(
            residual, np.clip(s, low + 1e-6, high - 1e-6), bounds=(low, high), x_scale="jac"
        ).cost
        for s in starts
    )
    assert objective <= lowest * (1 + 1e-6)


@pytest.mark.parametrize(
    ("text", "params", "message"),
    [
        ("E + A*N^-alpha", "A,E,alpha", r"a power is written with \*\*"),
        ("E + A*N**", "A,E", "not a formula"),
        ("__import__('os').system('true')", "A", "is not allowed"),
        ("N.real + A", "A", "is not allowed"),
        ("[A for A in N]", "A", "is not allowed"),
        ("A*N if N > 1 else 0", "A", "is not allowed"),
        ("A*exq(N)", "A", "no function exq; .* did you mean 'exp'"),
        ("A*max(N)", "A", "max takes 2 arguments"),
        ("A*True + N", "A", "True is not a number"),
        ("'text' + A*N", "A", "is not allowed"),
        ("A*N", "A,B", "the formula has no B"),
        ("A*N", "A>x", "expected A, A>0, A<0 or"),
        ("A*N", "A,A", "A is there twice"),
        ("A*2", "A", "it has no column"),
        ("2*N", "", "no parameter"),
        ("(" * 500 + "A" + ")" * 500, "A", "not a formula"),
    ],
)
def test_what_is_no_formula_is_refused(text, params, message):
    with pytest.raises(ValueError, match=message) as error:
        formula_law(text, params)
    assert "\n" not in str(error.value)


STUDIES, N_RUNS = 200, 120
NOMINAL = np.array([0.80, 0.95])


def coverage(name: str, studies: int = STUDIES) -> dict[str, np.ndarray]:
    """{symbol: (methods, levels)}: how often profile and bootstrap intervals hold the truth."""
    hits: dict[str, list[list[list[bool]]]] = {symbol: [] for symbol in TRUTHS[name]}
    for study in range(studies):
        fit = fit_law(LAWS[name], planted(name, N_RUNS, 0.005, 100 + study), delta=np.inf)
        found = estimate_uncertainty(fit, 400, study)
        for symbol, truth in TRUTHS[name].items():
            tables = (found.profile[symbol], found.bootstrap[symbol])
            edges = [np.where(np.isnan(t), [-np.inf, np.inf], t) for t in tables]
            hits[symbol].append([[low <= truth <= high for low, high in t] for t in edges])
    return {symbol: np.mean(rows, axis=0) for symbol, rows in hits.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FORMULAS if n != "farseer"])
def test_intervals_cover_at_their_nominal_rate(name):
    """200 studies of 120 runs with errors of 0.5%: on average of the parameters within 5 points."""
    rates = np.mean(list(coverage(name).values()), axis=0)
    np.testing.assert_allclose(rates, np.tile(NOMINAL, (2, 1)), atol=0.05)


def test_chinchilla_loss_is_over_training_with_equal_exponents():
    """a = A 6^eta and b = B 6^eta for alpha = beta = 2 eta."""
    n, d = np.geomspace(1e7, 1e10, 20), np.geomspace(1e9, 1e12, 20)[::-1]
    law = build_law(LAWS["over-training"], make_table(n_params=n, n_tokens=d), None)
    six = 6**0.18
    theta = law.from_symbols({"E": 1.8, "a": 482 * six, "b": 2085 * six, "eta": 0.18})[None]
    values = law.values(theta, {"n_params": np.log(n), "n_tokens": np.log(d)})[0][0]
    np.testing.assert_allclose(values, 1.8 + 482 / n**0.36 + 2085 / d**0.36, rtol=1e-12)


def test_the_best_size_of_a_law_without_two_terms_lies_inside():
    """Farseer's law falls again towards one token: the minimum that runs are about is inside."""
    from gpt_jax.scaling.frontier import law_frontier

    law = build_law(LAWS["farseer"], planted("farseer"), None)
    frontier = law_frontier(law, law.from_symbols(TRUTHS["farseer"])[None], 6.0)
    assert frontier is not None
    log_c = np.log([1e22])
    best = frontier.size(log_c)
    n = np.geomspace(1e9, 1e11, 4001)
    t, d = TRUTHS["farseer"], 1e22 / 6 / n
    power = np.exp(t["a1"] * n ** t["alpha"] + t["b1"])
    factor = np.exp(t["a2"] * n ** t["beta"] + t["b2"])
    loss = np.exp(t["a3"] * n ** t["gamma"] + t["b3"]) + factor * d**-power
    assert np.exp(best[0]) == pytest.approx(n[loss.argmin()], rel=0.003)
    assert 0 < loss.argmin() < 4000
