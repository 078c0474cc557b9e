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

from gpt_jax.cost import hardware
from gpt_jax.models import cpu


@dataclasses.dataclass(frozen=True)
class Precision:
    """Types of matrix-product operands and of activations, and the form that products take."""

    operands: jnp.dtype
    activations: jnp.dtype
    cpu: bool
    """Whether products take the forms of `gpt_jax.models.cpu`."""


def precision(dtype: str, products: str, backend: str, n_devices: int = 1) -> Precision:
    """Precision of `compute.dtype` and `compute.products` on a backend (cpu, gpu or tpu).

    The forms for a CPU are chosen on a single one: they slice the batch, which several devices
    split. An automatic dtype is bfloat16 on gpu and tpu, and with those forms on a CPU that
    multiplies it. Activations have the operands' type, but float32 on cpu: XLA computes elementwise
    bfloat16 there by converting each way.
    """
    in_cpu_form = products == "cpu" or (products, backend, n_devices) == ("auto", "cpu", 1)
    if dtype == "auto":
        fast = backend != "cpu" or (in_cpu_form and hardware.cpu_multiplies_bfloat16())
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
    if not how.cpu:
        return _product(x, kernel, n_contracted, how.operands, result)
    inputs, outputs = kernel.shape[:n_contracted], kernel.shape[n_contracted:]
    leading = x.shape[: x.ndim - n_contracted]
    x_MI = x.reshape(math.prod(leading), math.prod(inputs)).astype(jnp.float32)
    kernel_IO = kernel.reshape(math.prod(inputs), math.prod(outputs))
    y_MO = cpu.product(x_MI, kernel_IO, how.operands)
    return y_MO.reshape(*leading, *outputs).astype(result)


def look_up(x_BTD: jax.Array, table_VD: jax.Array, how: Precision) -> jax.Array:
    """x table^T in float32, [B, T, V]: the logits of a table of embeddings."""
    float32 = jnp.dtype(jnp.float32)
    if not how.cpu:
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


# --- products with the kernels of many experts --------------------------------------------------


def project_batched(x_EMI: jax.Array, kernel_EIO: jax.Array, how: Precision) -> jax.Array:
    """Each expert's rows times its kernel, [E, M, O], in the activations' type."""
    if not how.cpu:
        return _batched(x_EMI, kernel_EIO, how.operands, how.activations)

    def one(of_expert: tuple[jax.Array, jax.Array]) -> jax.Array:
        x_MI, kernel_IO = of_expert
        return cpu.product(x_MI.astype(jnp.float32), kernel_IO, how.operands)

    return jax.lax.map(one, (x_EMI, kernel_EIO)).astype(how.activations)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _batched(x_EMI, kernel_EIO, operands: jnp.dtype, result: jnp.dtype) -> jax.Array:
    return _contract_batched(x_EMI.astype(operands), kernel_EIO.astype(operands), 2, 1, result)


def _batched_backward(operands, result, saved, gradient_EMO):
    x_EMI, kernel_EIO = saved
    gradient_EMO = gradient_EMO.astype(operands)
    x_gradient = _contract_batched(gradient_EMO, kernel_EIO.astype(operands), 2, 2, x_EMI.dtype)
    rows = x_EMI.astype(operands)
    return x_gradient, _contract_batched(rows, gradient_EMO, 1, 1, kernel_EIO.dtype)


_batched.defvjp(
    lambda x, kernel, *how: (_batched.fun(x, kernel, *how), (x, kernel)), _batched_backward
)


def _contract_batched(a, b, a_dim: int, b_dim: int, result) -> jax.Array:
    """`_contract` over one dim of each, for each index of a first dim that both have."""
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dims = (((a_dim,), (b_dim,)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, dims, precision=exact, preferred_element_type=result)


def project_grouped(
    x_SI: jax.Array, kernel_EIO: jax.Array, sizes_E: jax.Array, block: int, how: Precision
) -> jax.Array:
    """Rows sorted by expert times their experts' kernels, [S, O], in the activations' type.

    sizes_E: rows of each expert, multiples of `block`; rows behind the last one's come out as
    anything.
    """
    if not how.cpu:
        return _grouped(x_SI, kernel_EIO, sizes_E, how.operands, how.activations)
    x_SI = x_SI.astype(jnp.float32)
    y_SO = cpu.grouped_product(x_SI, kernel_EIO, sizes_E // block, block, how.operands)
    return y_SO.astype(how.activations)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _grouped(x_SI, kernel_EIO, sizes_E, operands: jnp.dtype, result: jnp.dtype) -> jax.Array:
    return _contract_ragged(x_SI.astype(operands), kernel_EIO.astype(operands), sizes_E, result)


def _grouped_forward(x_SI, kernel_EIO, sizes_E, operands, result):
    return _grouped.fun(x_SI, kernel_EIO, sizes_E, operands, result), (x_SI, kernel_EIO, sizes_E)


def _grouped_backward(operands, result, saved, gradient_SO):
    x_SI, kernel_EIO, sizes_E = saved
    gradient_SO = gradient_SO.astype(operands)
    kernel_EOI = kernel_EIO.astype(operands).swapaxes(1, 2)
    x_gradient = _contract_ragged(gradient_SO, kernel_EOI, sizes_E, x_SI.dtype)
    rows = x_SI.astype(operands)
    by_kernel = _contract_ragged(rows, gradient_SO, sizes_E, kernel_EIO.dtype, summed=True)
    return x_gradient, by_kernel, None


_grouped.defvjp(_grouped_forward, _grouped_backward)


def _contract_ragged(a_SI, b, sizes_E, result, summed: bool = False) -> jax.Array:
    """[S, O] of rows and kernels [E, I, O]; summed: [E, I, O] of rows and rows [S, O]."""
    exact = jax.lax.Precision.HIGHEST if a_SI.dtype == jnp.float32 else None
    dims = jax.lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=((((0,), (0,)) if summed else ((1,), (1,))), ((), ())),
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[] if summed else [0],
    )
    return jax.lax.ragged_dot_general(
        a_SI, b, sizes_E, dims, precision=exact, preferred_element_type=result
    )
