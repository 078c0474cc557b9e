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


@dataclasses.dataclass(frozen=True)
class Precision:
    """Types of matrix-product operands and of activations, and how many dims a product has."""

    operands: jnp.dtype
    activations: jnp.dtype
    flatten: bool
    """Bring operands to two dims first: XLA's CPU code for gradients of more is much slower."""


def precision(dtype: str, backend: str) -> Precision:
    """The precision that `compute.dtype` means on a backend (cpu, gpu or tpu).

    auto is bfloat16 on gpu and tpu, and float32 on cpu. Activations have the operands' type, but
    float32 on cpu: XLA computes elementwise bfloat16 there by converting each way.
    """
    if dtype == "auto":
        dtype = "float32" if backend == "cpu" else "bfloat16"
    operands = jnp.dtype(dtype)
    activations = jnp.dtype(jnp.float32) if backend == "cpu" else operands
    return Precision(operands, activations, flatten=backend == "cpu")


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
    if not how.flatten:
        return _product(x, kernel, n_contracted, how.operands, result)
    inputs, outputs = kernel.shape[:n_contracted], kernel.shape[n_contracted:]
    leading = x.shape[: x.ndim - n_contracted]
    x_MI = x.reshape(math.prod(leading), math.prod(inputs))
    kernel_IO = kernel.reshape(math.prod(inputs), math.prod(outputs))
    return _product(x_MI, kernel_IO, 1, how.operands, result).reshape(*leading, *outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(
    x: jax.Array, kernel: jax.Array, n_contracted: int, operands: jnp.dtype, result: jnp.dtype
) -> jax.Array:
    return _contract(
        x.astype(operands),
        kernel.astype(operands),
        tuple(range(x.ndim - n_contracted, x.ndim)),
        tuple(range(n_contracted)),
        result,
    )


def _product_forward(x, kernel, n_contracted, operands, result):
    return _product(x, kernel, n_contracted, operands, result), (x, kernel)


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
    """One dot_general accumulated in float32; float32 operands are multiplied as float32."""
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    product = jax.lax.dot_general(
        a, b, ((a_dims, b_dims), ((), ())), precision=exact, preferred_element_type=jnp.float32
    )
    return product.astype(result)
