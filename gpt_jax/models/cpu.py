"""How products run on one CPU: what the plain form computes, in the forms that XLA:CPU is fast at.

XLA multiplies on a CPU through a library that has kernels for some forms of a product alone. What
was measured (jax 0.10, x86-64 with AVX-512; `tools/benchmark.py` shows what it gains):

- Operands in bfloat16 with results in float32 run at twice the speed of float32 where the processor
  multiplies them; a bfloat16 *result*, or operands that autodiff leaves in float32, do not. So each
  product here has its own gradient, which rounds what it multiplies.
- A product whose left side is transposed, x^T g, the gradient of every weight, falls back to half
  the speed, and XLA folds `.T` into it. A concatenation of transposed slices is not folded.
- Two dims are faster than three: gradients of more are written transposed.
- Wide results (a vocabulary) are slow: `objectives.in_parts` multiplies by a part of the vocabulary
  at a time.
- Attention has a form of its own (`gpt_jax.models.cpu_attention`).

The plain forms stand where these are called: in `products`, `layers`, `expert_products` and
`objectives.in_parts`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

SLICE, MOST_SLICES = 64, 32
"""Rows of a slice that is transposed: they stay in a core's cache, as far as there are not too many
slices to compile."""


def transposed(x: jax.Array) -> jax.Array:
    """[..., A, B] -> [..., B, A] as a copy that XLA does not fold into a product.

    Of the bits: XLA would copy bfloat16 by way of float32.
    """
    n_rows = x.shape[-2]
    if n_rows == 1:
        return x.reshape(*x.shape[:-2], -1, 1)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint16 if x.dtype == jnp.bfloat16 else jnp.uint32)
    size = min(-(-n_rows // 2), max(SLICE, -(-n_rows // MOST_SLICES)))
    parts = [bits[..., i : i + size, :].swapaxes(-1, -2) for i in range(0, n_rows, size)]
    return jax.lax.bitcast_convert_type(jnp.concatenate(parts, axis=-1), x.dtype)


def multiply(a: jax.Array, b: jax.Array, a_dim: int = -1, b_dim: int = -2) -> jax.Array:
    """Batched product over one dim of each, of operands as they are, in float32."""
    n = a.ndim - 2
    batch = tuple(range(n))
    contracted = ((a_dim % a.ndim,), (b_dim % b.ndim,))
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a, b, (contracted, (batch, batch)), precision=exact, preferred_element_type=jnp.float32
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(
    x_MI: jax.Array, kernel: jax.Array, operands: jnp.dtype, by_output: bool = False
) -> jax.Array:
    """x kernel in float32, of operands rounded to a type, forward and backward.

    kernel: [I, O], or [O, I] if by_output, as a tied embedding lies.
    """
    return _product_forward(x_MI, kernel, operands, by_output)[0]


def _product_forward(x_MI, kernel, operands, by_output):
    x_MI = jax.lax.optimization_barrier(x_MI.astype(operands))
    y_MO = multiply(x_MI, kernel.astype(operands), b_dim=-1 if by_output else -2)
    return y_MO, (x_MI, kernel)


def _product_backward(operands, by_output, saved, gradient_MO):
    x_MI, kernel = saved
    gradient_MO = jax.lax.optimization_barrier(gradient_MO.astype(operands))
    x_gradient = multiply(gradient_MO, kernel.astype(operands), b_dim=-2 if by_output else -1)
    left, right = (gradient_MO, x_MI) if by_output else (x_MI, gradient_MO)
    return x_gradient, multiply_from_left(left, right)


def multiply_from_left(left_MA: jax.Array, right_MB: jax.Array) -> jax.Array:
    """left^T right, [A, B]: copies left, or right and the result, whatever is less."""
    if left_MA.dtype == jnp.float32:
        return multiply(left_MA, right_MB, a_dim=-2)
    n_rows, (n_left, n_right) = left_MA.shape[0], (left_MA.shape[1], right_MB.shape[1])
    if 2 * n_rows * n_left <= 2 * n_rows * n_right + 4 * n_left * n_right:
        return multiply(transposed(left_MA), right_MB)
    return transposed(multiply(transposed(right_MB), left_MA))


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def scale_columns(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x scale, of [..., D] and [D]: its gradient sums over rows, which is fast as a product."""
    return x * scale


def _scale_backward(saved, gradient):
    x, scale = saved
    rows = (gradient * x).reshape(-1, x.shape[-1])
    ones = jnp.ones((1, rows.shape[0]), rows.dtype)
    return gradient * scale, multiply(ones, rows)[0]


scale_columns.defvjp(lambda x, scale: (x * scale, (x, scale)), _scale_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def activate(
    x: jax.Array, function: Callable[[jax.Array], jax.Array], kept: jnp.dtype
) -> jax.Array:
    """function(x), elementwise. The gradient keeps nothing but the derivative, of type `kept`.

    Autodiff would keep x and what is computed on the way, in float32.
    """
    return function(x)


def _activate_forward(x, function, kept):
    y, derivative = jax.jvp(function, (x,), (jnp.ones_like(x),))
    derivative = derivative.astype(kept)
    # Changes nothing, but reads the derivative here: XLA would compute it in the backward pass, and
    # keep all that it is computed of.
    return jnp.where(jnp.isnan(derivative), jnp.nan, y), derivative


activate.defvjp(
    _activate_forward,
    lambda function, kept, derivative, gradient: (gradient * derivative.astype(gradient.dtype),),
)
