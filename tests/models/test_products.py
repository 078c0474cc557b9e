"""Products in bfloat16 round operands alone, forward and backward, and accumulate in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.models.products import Precision, precision, project

FLOAT32 = precision("float32", "auto", "cpu")
BFLOAT16 = precision("bfloat16", "auto", "tpu")
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(2, 5, 3, 4)), jnp.float32)
KERNEL = jnp.asarray(RANDOM.normal(size=(3, 4, 6, 2)), jnp.float32)


def loss(x, kernel, how):
    return jnp.sum(jnp.sin(project(x, kernel, 2, how).astype(jnp.float32)))


def test_auto_is_bfloat16_where_the_hardware_gains():
    assert precision("auto", "cpu") == Precision(jnp.dtype("float32"), jnp.dtype("float32"), True)
    for backend in ("gpu", "tpu"):
        how = precision("auto", backend)
        assert (how.operands, how.activations, how.flatten) == ("bfloat16", "bfloat16", False)
    assert precision("bfloat16", "cpu").operands == jnp.bfloat16


@pytest.mark.smoke
@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_float32_products_and_gradients_are_the_einsums(backend):
    how = precision("float32", backend)

    def plain(x, kernel):
        y = jnp.einsum("BTij,ijkl->BTkl", x, kernel, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(jnp.sin(y))

    gradients = jax.grad(loss, (0, 1))(X, KERNEL, how)
    for ours, theirs in zip(gradients, jax.grad(plain, (0, 1))(X, KERNEL), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loss(X, KERNEL, how), plain(X, KERNEL), rtol=1e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("flatten", [True, False])
def test_bfloat16_rounds_operands_of_all_three_products(flatten, equations):
    how = Precision(jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.bfloat16), flatten)
    traced = equations(jax.grad(lambda x, kernel: loss(x, kernel, how), (0, 1)), X, KERNEL)
    dots = [e for e in traced if e.primitive.name == "dot_general"]
    assert len(dots) == 3
    for dot in dots:
        assert [v.aval.dtype for v in dot.invars] == [jnp.bfloat16] * 2
        assert dot.outvars[0].aval.dtype == jnp.float32

    rounded = jax.grad(loss, (0, 1))(X, KERNEL, how)
    exact = jax.grad(loss, (0, 1))(X, KERNEL, FLOAT32)
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == jnp.float32
        error = jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(theirs)
        # One rounding is 2^-9 relative; sin's argument of size 3.5 carries the forward rounding.
        assert 1e-4 < error < 0.03


def test_results_are_rounded_once_after_a_float32_sum():
    # In bfloat16, 256 + 1 = 256: ones added one by one would be lost.
    x, kernel = jnp.ones((1, 512)), jnp.ones((512, 1))
    assert project(x, kernel, 1, BFLOAT16).astype(jnp.float32) == 512
    y = project(x[:, :257], kernel[:257], 1, BFLOAT16, result=jnp.dtype(jnp.float32))
    assert y.dtype == jnp.float32
    assert y == 257
