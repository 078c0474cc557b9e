"""Norms, activations and positions against independent numpy formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.models import cpu as cpu_forms
from gpt_jax.models.entry import ACTIVATIONS
from gpt_jax.models.layers import Norm
from gpt_jax.models.positions.rotary import frequencies, rotate
from gpt_jax.models.positions.sinusoidal import sinusoids
from gpt_jax.models.products import precision
from gpt_jax.models.scores.alibi import alibi_slopes

X = np.random.default_rng(0).normal(0.5, 2, (2, 3, 8)).astype(np.float32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("products", ["cpu", "plain"])
def test_norms(products, kind, bias):
    scale = np.linspace(0.5, 2, 8, dtype=np.float32)
    shift = np.linspace(-1, 1, 8, dtype=np.float32)
    params = {"scale": scale} | ({"bias": shift} if bias and kind == "layernorm" else {})
    norm = Norm(kind, 1e-3, bias, precision("float32", products, "cpu"))
    assert norm.init(jax.random.key(0), X)["params"].keys() == params.keys()
    centred = X - X.mean(-1, keepdims=True) if kind == "layernorm" else X
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * scale
    expected += params.get("bias", 0)
    np.testing.assert_allclose(norm.apply({"params": params}, X), expected, rtol=1e-5, atol=1e-6)


def test_norms_are_computed_in_float32_and_keep_the_type():
    # Adding a large number leaves bfloat16 no digits for the deviations from the mean.
    x = jnp.asarray(X, jnp.bfloat16) + 64
    params = {"scale": jnp.ones(8)}
    y = Norm("layernorm", 1e-5, False, precision("bfloat16", "auto", "tpu")).apply(
        {"params": params}, x
    )
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(
        exact.var(-1, keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, atol=1e-2)


def gelu(x):
    return x * np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": lambda x: np.where(x > 0, x, 0),
    "relu_squared": lambda x: np.where(x > 0, x**2, 0),
    "swiglu": lambda x: x / (1 + np.exp(-x)),
    "geglu": gelu_tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS.names())
def test_activations(name):
    x = np.linspace(-4, 4, 33)
    y = ACTIVATIONS.find(name).function(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, FORMULAS[name](x), atol=2e-6)


def test_rotary_turns_pairs_by_position():
    positions = np.array([[0, 1, 5], [3, 2, 700]])
    x = np.random.default_rng(1).normal(size=(2, 3, 1, 6)).astype(np.float32)
    turned = np.asarray(
        rotate(jnp.asarray(x), jnp.asarray(positions), frequencies(x.shape[-1], 100.0))
    )
    for row, t, pair in np.ndindex(2, 3, 3):
        angle = positions[row, t] * 100.0 ** (-2 * pair / 6)
        number = complex(x[row, t, 0, pair], x[row, t, 0, pair + 3]) * np.exp(1j * angle)
        expected = [number.real, number.imag]
        np.testing.assert_allclose(turned[row, t, 0, [pair, pair + 3]], expected, atol=2e-4)


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = np.random.default_rng(2).normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def score(q_position, k_position):
        at = [jnp.array([[q_position]]), jnp.array([[k_position]])]
        turning = frequencies(q.shape[-1], 10_000.0)
        return float(jnp.vdot(rotate(q, at[0], turning), rotate(k, at[1], turning)))

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-2)


def test_sinusoids():
    encoded = np.asarray(sinusoids(jnp.array([[0, 3, 50]]), 6))[0]
    for row, position in enumerate([0, 3, 50]):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            expected = [math.sin(angle), math.cos(angle)]
            np.testing.assert_allclose(encoded[row, 2 * i : 2 * i + 2], expected, atol=1e-5)


def test_alibi_slopes_are_the_papers():
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    # Press et al.'s code for 12 heads: those of 8, then every other one of 16.
    sixteen = [2 ** (-0.5 * i) for i in range(1, 17)]
    assert alibi_slopes(12) == pytest.approx([2.0**-i for i in range(1, 9)] + sixteen[::2][:4])


@given(st.integers(1, 200))
def test_alibi_slopes_are_distinct_and_in_range(n_heads):
    slopes = alibi_slopes(n_heads)
    assert len(set(slopes)) == len(slopes) == n_heads
    assert all(2**-8 <= slope < 1 for slope in slopes)


@pytest.mark.parametrize("kept", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ACTIVATIONS.names())
def test_the_cpu_form_of_an_activation_has_its_values_and_gradients(name, kept):
    function, x = ACTIVATIONS.find(name).function, jnp.linspace(-6, 6, 401)
    y, gradient = jax.vjp(lambda x: cpu_forms.activate(x, function, jnp.dtype(kept)), x)
    plain, plain_gradient = jax.vjp(function, x)
    np.testing.assert_array_equal(y, plain)
    rounded = 2.0**-8 if kept == "bfloat16" else 1e-6
    np.testing.assert_allclose(gradient(y)[0], plain_gradient(y)[0], rtol=rounded, atol=1e-6)


def test_the_cpu_form_keeps_half_a_word_a_hidden_unit_for_the_gradient():
    """Counted in the compiled program, which would otherwise keep the input and more in float32."""
    how = precision("bfloat16", "cpu", "cpu")
    n_layers, shape = 8, (256, 512)

    def temporaries(activation):
        def loss(kernels, x):
            for kernel in kernels:
                x = activation(cpu_forms.product(x, kernel, how.operands))
            return jnp.sum(x * x)

        kernels = [jnp.ones((shape[1], shape[1]))] * n_layers
        compiled = jax.jit(jax.grad(loss)).lower(kernels, jnp.ones(shape)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    gelu = ACTIVATIONS.find("gelu_tanh").function
    saved = temporaries(gelu) - temporaries(lambda x: cpu_forms.activate(x, gelu, how.operands))
    assert saved > (n_layers - 1) * 2 * math.prod(shape)
