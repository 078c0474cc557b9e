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
- Softmax weights of a block of queries are kept, in the operands' type, and not computed twice;
  what would pass over them once more (their sums, the mean of their gradient) is done by products,
  or on outputs, which are a fraction of their size.

The plain forms stand where these are called: in `products`, `attention`, `layers` and
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def grouped_product(
    x_SI: jax.Array, kernel_EIO: jax.Array, blocks_E: jax.Array, block: int, operands: jnp.dtype
) -> jax.Array:
    """Rows sorted by expert, in blocks of one expert each, times their experts' kernels: [S, O].

    XLA:CPU would multiply every row by every kernel (`jax.lax.ragged_dot`). blocks_E: blocks of
    each expert; rows behind the last one's come out as zero. A loop over blocks in use.
    """
    return _grouped_forward(x_SI, kernel_EIO, blocks_E, block, operands)[0]


def _grouped_forward(x_SI, kernel_EIO, blocks_E, block, operands):
    y_SO = _by_block(x_SI.astype(operands), kernel_EIO.astype(operands), blocks_E, block, -2)
    return y_SO, (x_SI, kernel_EIO, blocks_E)


def _grouped_backward(block, operands, saved, gradient_SO):
    x_SI, kernel_EIO, blocks_E = saved
    x_SI, gradient_SO = x_SI.astype(operands), gradient_SO.astype(operands)
    x_gradient = _by_block(gradient_SO, kernel_EIO.astype(operands), blocks_E, block, -1)

    def add(i: jax.Array, total_EIO: jax.Array) -> jax.Array:
        x_RI, gradient_RO = _rows(x_SI, i, block), _rows(gradient_SO, i, block)
        expert = _expert(blocks_E, i)
        return total_EIO.at[expert].add(multiply_from_left(x_RI, gradient_RO))

    zeros = jnp.zeros(kernel_EIO.shape, jnp.float32)
    return x_gradient, jax.lax.fori_loop(0, jnp.sum(blocks_E), add, zeros), None


grouped_product.defvjp(_grouped_forward, _grouped_backward)


def _by_block(x_SI, kernels, blocks_E, block: int, contracted: int) -> jax.Array:
    """Each block of rows times its expert's kernel, over dim -2 or -1 of the kernel."""
    n_outputs = kernels.shape[2 if contracted == -2 else 1]

    def write(i: jax.Array, y_SO: jax.Array) -> jax.Array:
        y_RO = multiply(_rows(x_SI, i, block), kernels[_expert(blocks_E, i)], b_dim=contracted)
        return jax.lax.dynamic_update_slice_in_dim(y_SO, y_RO, i * block, axis=0)

    zeros = jnp.zeros((x_SI.shape[0], n_outputs), jnp.float32)
    return jax.lax.fori_loop(0, jnp.sum(blocks_E), write, zeros)


def _rows(x: jax.Array, i: jax.Array, block: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * block, block, axis=0)


def _expert(blocks_E: jax.Array, i: jax.Array) -> jax.Array:
    """Index of the expert that block i belongs to; blocks_E: number of blocks of each expert."""
    return jnp.sum(jnp.cumsum(blocks_E) <= i)


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


Elementwise = Callable[[jax.Array], jax.Array] | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def attend(
    q_BKRH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    biases: list[jax.Array],
    block: int,
    operands: jnp.dtype,
    change: Elementwise = None,
) -> tuple[jax.Array, jax.Array]:
    """softmax(change(q k) + bias) v in float32, [B, K, R, H], for blocks of queries, and the
    logarithm of the softmax's denominator [B, K, R]; q is scaled.

    R = T G rows, of G queries to a key's head at each position. biases: for each block of `block`
    positions (the last may be shorter) [B or 1, K or 1, rows, S]: for S keys that end where the
    block ends, and begin where a block begins. They have no gradient.

    Keys and values are not repeated G times: it would be slower, and jax 0.10's CPU compiler gives
    wrong numbers where a product of a repeated operand is fused with a sum over the other one.
    """
    return _attend_forward(q_BKRH, k_BKTH, v_BKTH, biases, block, operands, change)[0]


def _attend_forward(q_BKRH, k_BKTH, v_BKTH, biases, block, operands, change):
    q_BKRH, k_BKTH, v_BKTH = (x.astype(operands) for x in (q_BKRH, k_BKTH, v_BKTH))
    # A last column of ones sums the weights in the product that adds up the values.
    v1_BKTH = jnp.concatenate([v_BKTH, jnp.ones_like(v_BKTH[..., :1])], axis=-1)
    sums, all_weights, all_highest, derivatives = [], [], [], []
    for queries, keys, bias in _spans(biases, block, q_BKRH.shape[2] // k_BKTH.shape[2]):
        scores_BKRS = multiply(q_BKRH[:, :, queries], k_BKTH[:, :, keys], b_dim=-1)
        if change is not None:
            ones = jnp.ones_like(scores_BKRS)
            scores_BKRS, derivative = jax.jvp(change, (scores_BKRS,), (ones,))
            derivatives.append(derivative.astype(operands))
        scores_BKRS = scores_BKRS + bias
        highest_BKR1 = jnp.max(scores_BKRS, axis=-1, keepdims=True)
        weights_BKRS = jnp.exp(scores_BKRS - highest_BKR1).astype(operands)
        sums.append(multiply(weights_BKRS, v1_BKTH[:, :, keys]))
        all_weights.append(weights_BKRS)
        all_highest.append(highest_BKR1)
    sums_BKRH = _joined(sums)
    total_BKR1 = sums_BKRH[..., -1:]
    out_BKRH = sums_BKRH[..., :-1] / total_BKR1
    log_total_BKR = (_joined(all_highest) + jnp.log(total_BKR1))[..., 0]
    saved = q_BKRH, k_BKTH, v_BKTH, biases, all_weights, derivatives, out_BKRH, total_BKR1
    return (out_BKRH, log_total_BKR), saved


def _attend_backward(block, operands, change, saved, gradients):
    """Weights are saved as exponentials, not divided by their sum: the gradient is, instead.

    The mean of a softmax's gradient is that of the output times the output (FlashAttention, Dao et
    al. 2022, appendix B.2). A gradient of the denominator's logarithm is one of all scores, by
    their weights: it is taken from that mean.
    """
    q_BKRH, k_BKTH, v_BKTH, biases, all_weights, derivatives, out_BKRH, total_BKR1 = saved
    gradient_BKRH, log_gradient_BKR = gradients
    gradient_BKRH = (gradient_BKRH / total_BKR1).astype(operands)
    mean_BKR1 = jnp.sum(gradient_BKRH.astype(jnp.float32) * out_BKRH, axis=-1, keepdims=True)
    mean_BKR1 -= log_gradient_BKR[..., None] / total_BKR1
    q_gradients = []
    k_gradients: list[jax.Array | float] = [0.0] * len(biases)
    v_gradients: list[jax.Array | float] = [0.0] * len(biases)
    spans = _spans(biases, block, q_BKRH.shape[2] // k_BKTH.shape[2])
    for i, ((queries, keys, _), weights) in enumerate(zip(spans, all_weights, strict=True)):
        q, gradient = q_BKRH[:, :, queries], gradient_BKRH[:, :, queries]
        by_weight = multiply(gradient, v_BKTH[:, :, keys], b_dim=-1)
        by_score = weights * (by_weight - mean_BKR1[:, :, queries])
        by_score = (by_score if change is None else by_score * derivatives[i]).astype(operands)
        q_gradients.append(multiply(by_score, k_BKTH[:, :, keys]))
        by_key_BKHS = multiply(transposed(q), by_score)
        by_value_BKHS = multiply(transposed(gradient), weights)
        for j in range(keys.start // block, -(-keys.stop // block)):
            part = slice(j * block - keys.start, (j + 1) * block - keys.start)
            k_gradients[j] += by_key_BKHS[..., part]
            v_gradients[j] += by_value_BKHS[..., part]
    k_gradient, v_gradient = (
        jnp.concatenate(parts, axis=-1).swapaxes(-1, -2) for parts in (k_gradients, v_gradients)
    )
    return _joined(q_gradients), k_gradient, v_gradient, None


attend.defvjp(_attend_forward, _attend_backward)


def _spans(biases: list[jax.Array], block: int, group: int) -> list[tuple[slice, slice, jax.Array]]:
    """(rows of queries, keys, bias) of every block."""
    spans = []
    for i, bias in enumerate(biases):
        first = i * block
        stop = first + bias.shape[-2] // group
        queries = slice(group * first, group * stop)
        spans.append((queries, slice(stop - bias.shape[-1], stop), bias))
    return spans


def _joined(blocks: list) -> jax.Array:
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=2)
