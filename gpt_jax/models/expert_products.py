"""Matmuls with the kernels of many experts: `gpt_jax.models.products` for each of them."""

import functools

import jax
import jax.numpy as jnp

from gpt_jax.models import cpu
from gpt_jax.models.products import Precision


def project_batched(x_EMI: jax.Array, kernel_EIO: jax.Array, how: Precision) -> jax.Array:
    """Each expert's rows times its kernel, [E, M, O], in the activations' type."""
    if not how.cpu_forms:
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
    if not how.cpu_forms:
        return _grouped(x_SI, kernel_EIO, sizes_E, how.operands, how.activations)
    x_SI = x_SI.astype(jnp.float32)
    y_SO = grouped_product(x_SI, kernel_EIO, sizes_E // block, block, how.operands)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def grouped_product(
    x_SI: jax.Array, kernel_EIO: jax.Array, blocks_E: jax.Array, block: int, operands: jnp.dtype
) -> jax.Array:
    """Rows sorted by expert, in blocks of one expert each, times their experts' kernels: [S, O].

    XLA:CPU would multiply every row by every kernel (`jax.lax.ragged_dot`). blocks_E: blocks of
    each expert; rows behind the last one's come out as zero. A loop over blocks in use.
    """
    return _cpu_grouped_forward(x_SI, kernel_EIO, blocks_E, block, operands)[0]


def _cpu_grouped_forward(x_SI, kernel_EIO, blocks_E, block, operands):
    y_SO = _by_block(x_SI.astype(operands), kernel_EIO.astype(operands), blocks_E, block, -2)
    return y_SO, (x_SI, kernel_EIO, blocks_E)


def _cpu_grouped_backward(block, operands, saved, gradient_SO):
    x_SI, kernel_EIO, blocks_E = saved
    x_SI, gradient_SO = x_SI.astype(operands), gradient_SO.astype(operands)
    x_gradient = _by_block(gradient_SO, kernel_EIO.astype(operands), blocks_E, block, -1)

    def add(i: jax.Array, total_EIO: jax.Array) -> jax.Array:
        x_RI, gradient_RO = _rows(x_SI, i, block), _rows(gradient_SO, i, block)
        expert = _expert(blocks_E, i)
        return total_EIO.at[expert].add(cpu.multiply_from_left(x_RI, gradient_RO))

    zeros = jnp.zeros(kernel_EIO.shape, jnp.float32)
    return x_gradient, jax.lax.fori_loop(0, jnp.sum(blocks_E), add, zeros), None


grouped_product.defvjp(_cpu_grouped_forward, _cpu_grouped_backward)


def _by_block(x_SI, kernels, blocks_E, block: int, contracted: int) -> jax.Array:
    """Each block of rows times its expert's kernel, over dim -2 or -1 of the kernel."""
    n_outputs = kernels.shape[2 if contracted == -2 else 1]

    def write(i: jax.Array, y_SO: jax.Array) -> jax.Array:
        y_RO = cpu.multiply(_rows(x_SI, i, block), kernels[_expert(blocks_E, i)], b_dim=contracted)
        return jax.lax.dynamic_update_slice_in_dim(y_SO, y_RO, i * block, axis=0)

    zeros = jnp.zeros((x_SI.shape[0], n_outputs), jnp.float32)
    return jax.lax.fori_loop(0, jnp.sum(blocks_E), write, zeros)


def _rows(x: jax.Array, i: jax.Array, block: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * block, block, axis=0)


def _expert(blocks_E: jax.Array, i: jax.Array) -> jax.Array:
    """Index of the expert that block i belongs to; blocks_E: number of blocks of each expert."""
    return jnp.sum(jnp.cumsum(blocks_E) <= i)
