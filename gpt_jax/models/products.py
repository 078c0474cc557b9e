"""How a matrix product is computed: the one place that casts operands.

The model says what is multiplied; operand and result types are decided here. Parameters are
float32; in bfloat16 mode the operands of every product, forward and backward, are rounded to
bfloat16 and products accumulate in float32.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from gpt_jax.cost import cpu_speed
from gpt_jax.models import cpu


@dataclasses.dataclass(frozen=True)
class Precision:
    """Types of matrix-product operands and of activations, and the form that products take."""

    operands: jnp.dtype
    activations: jnp.dtype
    cpu_forms: bool
    """Whether matmuls take the forms of `gpt_jax.models.cpu`."""


def precision(dtype: str, products: str, backend: str, n_devices: int = 1) -> Precision:
    """Precision of `compute.dtype` and `compute.products` on a backend (cpu, gpu or tpu).

    The forms for a CPU are chosen on a single one: they slice the batch, which several devices
    split. An automatic dtype is bfloat16 on gpu and tpu, and with those forms on a CPU that
    multiplies it. Activations have the operands' type, but float32 on cpu: XLA computes elementwise
    bfloat16 there by converting each way.
    """
    in_cpu_form = products == "cpu" or (products, backend, n_devices) == ("auto", "cpu", 1)
    if dtype == "auto":
        fast = backend != "cpu" or (in_cpu_form and cpu_speed.cpu_multiplies_bfloat16())
        dtype = "bfloat16" if fast else "float32"
    operands = jnp.dtype(dtype)
    activations = jnp.dtype(jnp.float32) if backend == "cpu" else operands
    return Precision(operands, activations, in_cpu_form)


def project(
    x: jax.Array,
    kernel: jax.Array,
    n_contracted: int,
    how: Precision,
    result: jnp.dtype | None = None,
) -> jax.Array:
    """Contract the last dims of `x` with the first `n_contracted` dims of `kernel`.

    x: [..., *inputs]; kernel: [*inputs, *outputs]; returns [..., *outputs], in the activations'
    type if `result` names no other.
    """
    result = result or how.activations
    if not how.cpu_forms:
        return _product(x, kernel, n_contracted, how.operands, result)
    inputs, outputs = kernel.shape[:n_contracted], kernel.shape[n_contracted:]
    leading = x.shape[: x.ndim - n_contracted]
    x_MI = x.reshape(math.prod(leading), math.prod(inputs)).astype(jnp.float32)
    kernel_IO = kernel.reshape(math.prod(inputs), math.prod(outputs))
    y_MO = cpu.product(x_MI, kernel_IO, how.operands)
    return y_MO.reshape(*leading, *outputs).astype(result)


def table_logits(x_BTD: jax.Array, table_VD: jax.Array, how: Precision) -> jax.Array:
    """Logits of a table of output embeddings: x table^T in float32, [B, T, V]."""
    float32 = jnp.dtype(jnp.float32)
    if not how.cpu_forms:
        return _product(x_BTD, table_VD.T, 1, how.operands, float32)
    x_MD = x_BTD.reshape(-1, x_BTD.shape[-1]).astype(float32)
    y_MV = cpu.product(x_MD, table_VD, how.operands, by_output=True)
    return y_MV.reshape(*x_BTD.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(
    x: jax.Array, kernel: jax.Array, n_contracted: int, operands: jnp.dtype, result: jnp.dtype
) -> jax.Array:
    inputs = tuple(range(x.ndim - n_contracted, x.ndim))
    outputs = tuple(range(n_contracted))
    return _contract(x.astype(operands), kernel.astype(operands), inputs, outputs, result)


def _product_forward(x, kernel, n_contracted, operands, result):
    # The body, and not the custom_vjp again: what a checkpoint's policy saves it must see.
    return _product.fun(x, kernel, n_contracted, operands, result), (x, kernel)


def _product_backward(n_contracted, operands, result, saved, gradient):
    """Cotangents are rounded to the operands' type too: autodiff would multiply float32 by it."""
    x, kernel = saved
    n_leading, n_outputs = x.ndim - n_contracted, kernel.ndim - n_contracted
    gradient = gradient.astype(operands)
    outputs = tuple(range(gradient.ndim - n_outputs, gradient.ndim))
    x_gradient = _contract(
        gradient,
        kernel.astype(operands),
        outputs,
        tuple(range(n_contracted, kernel.ndim)),
        x.dtype,
    )
    leading = tuple(range(n_leading))
    kernel_gradient = _contract(x.astype(operands), gradient, leading, leading, kernel.dtype)
    return x_gradient, kernel_gradient


_product.defvjp(_product_forward, _product_backward)


def _contract(a, b, a_dims: tuple[int, ...], b_dims: tuple[int, ...], result) -> jax.Array:
    """One dot_general of type `result`; float32 operands are multiplied as float32.

    GPU and TPU accumulate in float32 whatever the result. Asked for bfloat16, they also add the
    shares of tensor-parallel devices in it: half the traffic, and half the buffers.
    """
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a, b, ((a_dims, b_dims), ((), ())), precision=exact, preferred_element_type=result
    )
