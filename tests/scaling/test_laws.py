"""Laws: the printed formula, exact gradients, symbols there and back."""

import numpy as np
import pytest
from planted_laws import SYMBOLS, formula, variants

from gpt_jax.scaling.catalog import LAWS, build_law, find_law
from gpt_jax.scaling.data_constrained import DataConstrained
from gpt_jax.scaling.laws import KaplanND, symbols_of
from gpt_jax.scaling.table import RunTable, make_table


@pytest.fixture
def runs() -> RunTable:
    rng = np.random.default_rng(0)

    def draw(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), 25))

    return make_table(
        n_params=draw(1e7, 1e10),
        n_tokens=draw(1e9, 1e12),
        steps_min=draw(1e3, 1e5),
        unique_tokens=draw(3e8, 3e11),
        loss=draw(2.0, 5.0),
        critical_batch_tokens=draw(1e5, 1e7),
    )


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "irreducible"), variants())
def test_law_is_the_printed_formula(runs, name, irreducible):
    law = build_law(LAWS[name], runs, irreducible)
    theta = law.from_symbols(SYMBOLS)[None]
    x = {v: np.log(runs[v]) for v in law.variables}
    expected = np.log(formula(name, SYMBOLS, runs, irreducible))
    np.testing.assert_allclose(law.log_loss(theta, x)[0][0], expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        symbols_of(law, theta)[0], [SYMBOLS[s] for s in law.symbols], rtol=1e-9
    )


@pytest.mark.parametrize(("name", "irreducible"), variants())
def test_gradients_are_exact(runs, name, irreducible):
    law = build_law(LAWS[name], runs, irreducible)
    theta = law.from_symbols(SYMBOLS)[None]
    x = {v: np.log(runs[v]) for v in law.variables}
    _, gradient = law.log_loss(theta, x)
    for p in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[0, p] = 1e-6
        numeric = (law.log_loss(theta + step, x)[0] - law.log_loss(theta - step, x)[0]) / 2e-6
        np.testing.assert_allclose(
            gradient[:, p], numeric, atol=1e-6 * max(1, np.abs(numeric).max())
        )


def test_data_constrained_without_repetition_is_chinchilla(runs):
    law = DataConstrained((20.0, 24.0))
    theta = law.from_symbols(SYMBOLS)[None]
    # Sizes below the optimum of their tokens: nothing is in excess, nothing repeated.
    n, d = np.log([1e6, 1e7]), np.log([1e11, 1e12])
    x = {"n_params": n, "n_tokens": d, "unique_tokens": d}
    ours, base = law.log_loss(theta, x)[0], law.base.log_loss(theta[:, :5], x)[0]
    np.testing.assert_allclose(ours, base, rtol=1e-12)


def test_kaplan_nd_tends_to_its_one_variable_laws():
    """With unlimited data L(N, D) is (N_c/N)^alpha_N, with unlimited size (D_c/D)^alpha_D."""
    law = KaplanND((20.0, 24.0))
    theta = law.from_symbols(SYMBOLS)[None]
    x = {"n_params": np.log([1e8, 1e60]), "n_tokens": np.log([1e60, 1e9])}
    losses = np.exp(law.log_loss(theta, x)[0][0])
    np.testing.assert_allclose(losses[0], (8.8e13 / 1e8) ** 0.076, rtol=1e-9)
    np.testing.assert_allclose(losses[1], (5.4e13 / 1e9) ** 0.095, rtol=1e-9)


def test_unknown_law_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'chinchilla-isoflop'"):
        find_law("chinchila-isoflop")


def test_a_law_without_an_irreducible_term_says_so(runs):
    with pytest.raises(ValueError, match="no irreducible term"):
        build_law(LAWS["critical-batch"], runs, True)
