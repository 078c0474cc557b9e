"""Answers equal the closed forms, and what cannot be answered is said."""

import numpy as np
import pytest
from planted_laws import SYMBOLS, TRUTH, chinchilla_loss, optimal_size

from gpt_jax.config import ModelConfig
from gpt_jax.scaling import answers
from gpt_jax.scaling.catalog import LAWS
from gpt_jax.scaling.fit import fit_law
from gpt_jax.scaling.frontier import law_exponents, law_frontier
from gpt_jax.scaling.ladder import count, nearest_rung, settings_of, with_settings
from gpt_jax.scaling.laws import KaplanND
from gpt_jax.scaling.table import make_table


@pytest.fixture
def frontier(scattered):
    fit = fit_law(LAWS["chinchilla-parametric"], scattered(40))
    found = law_frontier(fit.law, fit.theta[None], 6.0)
    assert found is not None
    return found


@pytest.mark.smoke
def test_best_model_for_a_compute_is_the_closed_form(frontier):
    values = answers.for_compute(frontier, 1e21).values
    n = optimal_size(1e21)
    assert values["n_params"].value == pytest.approx(n, rel=1e-6)
    assert values["n_tokens"].value == pytest.approx(1e21 / 6 / n, rel=1e-6)
    expected = chinchilla_loss(np.array(n), np.array(1e21 / 6 / n))
    assert values["loss"].value == pytest.approx(float(expected), rel=1e-6)


def test_no_size_at_that_compute_has_a_lower_loss(frontier):
    best = answers.for_compute(frontier, 1e20).values
    n = best["n_params"].value * np.array([0.5, 0.9, 0.999, 1.001, 1.1, 2])
    assert (chinchilla_loss(n, 1e20 / 6 / n) > best["loss"].value).all()


def test_questions_are_inverse_to_each_other(frontier):
    first = answers.for_compute(frontier, 3e20).values
    by_loss = answers.for_loss(frontier, first["loss"].value).values
    by_size = answers.for_size(frontier, first["n_params"].value).values
    assert by_loss["compute"].value == pytest.approx(3e20, rel=1e-6)
    assert by_size["compute"].value == pytest.approx(3e20, rel=1e-6)


def test_over_training_costs_what_it_says(frontier):
    """At the stated extra compute and tokens per parameter, the loss is the optimum's."""
    answer = answers.for_compute(frontier, 1e21)
    best = {k: v.value for k, v in answer.values.items()}
    for over in answer.over_training:
        ratio = over.n_tokens / over.n_params
        assert ratio == pytest.approx(over.factor * best["tokens_per_param"], rel=1e-9)
        assert 6 * over.n_params * over.n_tokens == pytest.approx(1e21, rel=1e-9)
        assert over.loss > best["loss"]
        n = over.n_params_same_loss
        loss = float(chinchilla_loss(np.array(n), np.array(n * ratio)))
        assert loss == pytest.approx(best["loss"], rel=1e-6)
        assert 6 * n * n * ratio / 1e21 == pytest.approx(over.extra_compute, rel=1e-6)
    assert [o.factor for o in answer.over_training] == [2, 4, 8]


def test_intervals_come_from_the_refits(scattered):
    fit = fit_law(LAWS["chinchilla-parametric"], scattered(40))
    moved = fit.theta + np.linspace(-0.05, 0.05, 101)[:, None] * [1, 0, 0, 0, 0]
    found = law_frontier(fit.law, np.concatenate([fit.theta[None], moved]), 6.0)
    assert found is not None
    estimate = answers.for_compute(found, 1e21).values["n_params"]
    # N_opt goes with A^(1 / (alpha + beta)).
    edge = estimate.value * np.exp(np.array([-0.04, 0.04]) / (TRUTH["alpha"] + TRUTH["beta"]))
    np.testing.assert_allclose(estimate.intervals[80], edge, rtol=1e-3)


def test_a_loss_below_the_irreducible_is_refused(frontier):
    with pytest.raises(ValueError, match=r"does not go below 1\.81"):
        answers.for_loss(frontier, 1.7)


def test_kaplan_optimum_balances_marginal_gains():
    law = KaplanND((20.0, 24.0))
    theta = law.from_symbols(SYMBOLS)[None]
    found = law_frontier(law, theta, 6.0)
    assert found is not None
    log_c = np.log([1e21])
    log_n, loss = found.size(log_c), found.loss(log_c)
    assert found.loss_anywhere is not None
    for shift in (-0.05, 0.05):
        n = log_n + shift
        assert found.loss_anywhere(n, log_c - np.log(6) - n)[0] > loss[0]
    ratio = SYMBOLS["alpha_N"] / SYMBOLS["alpha_D"]
    assert law_exponents(law, theta)["a"][0] == pytest.approx(1 / (1 + ratio))


def test_scarce_data_make_the_best_model_larger_and_worse():
    from gpt_jax.scaling.data_constrained import DataConstrained

    law = DataConstrained((20.0, 24.0))
    theta = law.from_symbols(SYMBOLS)[None]
    unlimited, scarce = (law_frontier(law, theta, 6.0, u) for u in (None, 1e9))
    assert unlimited is not None
    assert scarce is not None
    log_c = np.log([1e22])
    assert scarce.loss(log_c)[0] > unlimited.loss(log_c)[0]
    plenty = law_frontier(law, theta, 6.0, 1e30)
    assert plenty is not None
    assert plenty.size(log_c)[0] == pytest.approx(unlimited.size(log_c)[0], abs=1e-5)


def test_laws_of_one_variable_answer_for_it_only():
    compute = np.geomspace(1e17, 1e21, 12)
    runs = make_table(flops=compute, loss=900 * compute**-0.15 + 1.2)
    fit = fit_law(LAWS["compute-power"], runs)
    none = fit.theta[None][:0]
    loss = answers.from_one_variable(fit, none, "compute", 1e22).values["loss"].value
    assert loss == pytest.approx(900 * 1e22**-0.15 + 1.2, rel=1e-6)
    back = answers.from_one_variable(fit, none, "target_loss", loss).values["flops"].value
    assert back == pytest.approx(1e22, rel=1e-4)
    with pytest.raises(ValueError, match="--n-params: compute-power is a law of flops"):
        answers.from_one_variable(fit, none, "n_params", 1e9)


def test_nearest_shape_has_the_settings_of_the_runs():
    """Rotary positions and no biases: the rung of width 64 has no row for each of 1,024 places."""
    model = ModelConfig(
        vocab_size=257, d_model=16, n_heads=2, n_layers=2, bias=False, norm="rmsnorm",
        position="rotary", dropout_residual=0.1, init_residual="zero",
    )  # fmt: skip
    base = with_settings(settings_of(model), 257)
    assert (base.position, base.bias, base.norm) == ("rotary", False, "rmsnorm")
    rung = nearest_rung(1e4, "n_params", base)
    # 257 tokens of 64; projections of 12 x 64 x 64; gains of two norms and of the last.
    assert rung.n_params == 257 * 64 + 12 * 64 * 64 + 3 * 64
    assert nearest_rung(1e4, "n_params", ModelConfig(vocab_size=257)).n_params > 115_000
    assert settings_of(ModelConfig()) == "{}"


@pytest.mark.parametrize(
    "changes",
    [
        {"biases": ("qkv",)},
        {"embedding_norm": True},
        {"norm_gain": "none"},
        {"parallel_block": True, "parallel_norms": "separate"},
        {"qk_norm": True, "qk_norm_over": "heads"},
        {"scores": ("sinks",)},
    ],
    ids=lambda changes: list(changes)[-1],
)
def test_every_setting_that_adds_parameters_is_counted(changes):
    model = ModelConfig(**changes)
    without = ModelConfig(**dict(list(changes.items())[:-1]))
    assert count(model, "n_params") != count(without, "n_params"), "the setting decides nothing"
    again = with_settings(settings_of(model), model.vocab_size)
    assert count(again, "n_params") == count(model, "n_params")


@pytest.mark.parametrize(
    ("n_params", "convention", "vocab_size", "n_layers"),
    [
        (124e6, "n_params", 50257, 12),
        (85e6, "n_params_non_embedding", 50257, 12),
        (1e9, "n_params", 50257, 26),
        (1e6, "n_params", 50257, 1),  # most of GPT-2's smallest is its vocabulary
        (1e6, "n_params", 512, 3),
    ],
)
def test_nearest_shape_is_a_gpt(n_params, convention, vocab_size, n_layers):
    """12 layers of width 768 are GPT-2: 124M parameters, 85M of them not embeddings."""
    rung = nearest_rung(n_params, convention, ModelConfig(vocab_size=vocab_size))
    assert (rung.n_layers, rung.d_model) == (n_layers, 64 * n_layers)
