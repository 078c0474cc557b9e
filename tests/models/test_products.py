"""Products in bfloat16 round operands alone, forward and backward, and accumulate in float32."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.cost import cpu_speed
from gpt_jax.models import cpu as cpu_forms
from gpt_jax.models.execution import decide_execution
from gpt_jax.models.products import Precision, precision, project

FLOAT32 = precision("float32", "auto", "cpu")
BFLOAT16 = precision("bfloat16", "auto", "tpu")
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(2, 5, 3, 4)), jnp.float32)
KERNEL = jnp.asarray(RANDOM.normal(size=(3, 4, 6, 2)), jnp.float32)


def loss(x, kernel, how):
    return jnp.sum(jnp.sin(project(x, kernel, 2, how).astype(jnp.float32)))


def test_auto_is_bfloat16_where_the_cpu_speed_gains(monkeypatch):
    for has, operands in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(cpu_speed, "cpu_multiplies_bfloat16", lambda has=has: has)
        how = precision("auto", "auto", "cpu")
        assert how == Precision(jnp.dtype(operands), jnp.dtype("float32"), True)
    for backend in ("gpu", "tpu"):
        how = precision("auto", "auto", backend)
        assert (how.operands, how.activations, how.cpu_forms) == ("bfloat16", "bfloat16", False)
    assert precision("bfloat16", "auto", "cpu").operands == jnp.bfloat16
    assert not precision("bfloat16", "plain", "cpu").cpu_forms


@pytest.mark.smoke
@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_float32_products_and_gradients_are_the_einsums(backend):
    how = precision("float32", "auto", backend)

    def plain(x, kernel):
        y = jnp.einsum("BTij,ijkl->BTkl", x, kernel, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(jnp.sin(y))

    gradients = jax.grad(loss, (0, 1))(X, KERNEL, how)
    for ours, theirs in zip(gradients, jax.grad(plain, (0, 1))(X, KERNEL), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loss(X, KERNEL, how), plain(X, KERNEL), rtol=1e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("cpu", [True, False])
def test_bfloat16_rounds_operands_of_all_three_products(cpu, equations):
    how = Precision(jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.bfloat16), cpu)
    traced = equations(jax.grad(lambda x, kernel: loss(x, kernel, how), (0, 1)), X, KERNEL)
    dots = [e for e in traced if e.primitive.name == "dot_general"]
    assert len(dots) == 3
    for dot in dots:
        assert [v.aval.dtype for v in dot.invars] == [jnp.bfloat16] * 2
    # As written, a product has the type that it is kept in: accelerators sum in float32.
    forward, *backward = [dot.outvars[0].aval.dtype for dot in dots]
    assert forward == (jnp.float32 if cpu else jnp.bfloat16)
    assert backward == [jnp.float32] * 2

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


@pytest.mark.parametrize("by_output", [False, True])
@pytest.mark.parametrize(
    ("n_rows", "n_inputs", "n_outputs"),
    [(1, 1, 1), (1, 8, 3), (2, 3, 5), (7, 130, 2), (64, 16, 64), (65, 33, 128), (300, 5, 200)],
)
def test_the_cpu_form_runs_for_any_shape(n_rows, n_inputs, n_outputs, by_output):
    """XLA:CPU compiles some forms of a bfloat16 product that it then cannot run."""
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(n_rows, n_inputs)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(n_inputs, n_outputs)), jnp.float32)
    given = kernel.T if by_output else kernel

    def of(operands):
        def squares(x, kernel):
            return jnp.sum(cpu_forms.product(x, kernel, jnp.dtype(operands), by_output) ** 2)

        return jax.jit(jax.grad(squares, (0, 1)))(x, given)

    for rounded, exact in zip(of("bfloat16"), of("float32"), strict=True):
        error = jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact)
        assert error < 0.03
    plain = jax.grad(lambda x, kernel: jnp.sum((x @ kernel) ** 2), (0, 1))(x, kernel)
    plain = (plain[0], plain[1].T) if by_output else plain
    for ours, theirs in zip(of("float32"), plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_no_transposed_left_operand_reaches_a_bfloat16_product():
    """It would be computed at half the speed: the weight gradient multiplies a copy."""

    def squares(x, kernel):
        return jnp.sum(cpu_forms.product(x, kernel, jnp.dtype("bfloat16")) ** 2)

    x, kernel = jnp.ones((512, 256)), jnp.ones((256, 384))
    compiled = jax.jit(jax.grad(squares, (0, 1))).lower(x, kernel).compile().as_text()
    dots = [line for line in compiled.splitlines() if re.search(r"= f32\S+ dot\(", line)]
    assert len(dots) == 3
    assert not [line for line in dots if "lhs_contracting_dims={0}" in line]


def test_plain_bfloat16_is_refused_on_a_cpu():
    """XLA:CPU ends such a program with UNIMPLEMENTED: BF16 x BF16 = F32."""
    model = ModelConfig()
    plain = ComputeConfig(dtype="bfloat16", products="plain")
    rounded = ComputeConfig(dtype="bfloat16")
    for compute, n_devices in ((plain, 1), (rounded, 8)):
        with pytest.raises(ValueError, match=r"compute\.products = auto or cpu, on one device"):
            decide_execution(model, compute, "cpu", n_devices)
        assert not decide_execution(model, compute, "gpu", n_devices).how.cpu_forms
    assert decide_execution(model, rounded, "cpu").how.cpu_forms
