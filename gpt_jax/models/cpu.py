"""How products run on one CPU: what the plain form computes, in the forms that XLA:CPU is fast at.

XLA multiplies on a CPU through a library that has kernels for some forms of a product alone. What
was measured (jax 0.10, x86-64 with AVX-512; `tools/benchmark.py` shows what it gains):

- Operands in bfloat16 with results in float32 run at twice the speed of float32 where the processor
  multiplies them; a bfloat16 *result*, or operands that autodiff leaves in float32, do not. So each
  product here has its own gradient, which rounds what it multiplies.
- A product whose left side is transposed, x^T g, the gradient of every weight, falls back to half
  the speed, and XLA folds `.T` into it. A concatenation of transposed slices is not folded.
- Two dims are faster than three: gradients of more are written transposed.
- Wide results (a vocabulary) are slow: `losses` multiplies by a part of the vocabulary at a time.
- Softmax weights of a block of queries are kept, in the operands' type, and not computed twice.

The plain forms stand where these are called: in `products`, `attention`, `layers` and `losses`.
"""

import functools

import jax
import jax.numpy as jnp

SLICE, MOST_SLICES = 64, 32
"""Rows of a slice that is transposed: they stay in a core's cache, as far as there are not too many
slices to compile."""
SLICED_UP_TO = 64
"""Softmax weights of longer blocks are faster multiplied as they lie."""


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend(
    q_BNTH: jax.Array,
    k_BNTH: jax.Array,
    v_BNTH: jax.Array,
    biases: list[jax.Array],
    block: int,
    operands: jnp.dtype,
) -> jax.Array:
    """softmax(q k + bias) v in float32, for blocks of queries; q is scaled.

    biases: for each block of `block` queries (the last may be shorter) [B or 1, N or 1, t, S]: for
    S keys that end where the block ends, and begin where a block begins. They have no gradient.
    """
    return _attend_forward(q_BNTH, k_BNTH, v_BNTH, biases, block, operands)[0]


def _attend_forward(q_BNTH, k_BNTH, v_BNTH, biases, block, operands):
    q_BNTH, k_BNTH, v_BNTH = (x.astype(operands) for x in (q_BNTH, k_BNTH, v_BNTH))
    outputs, all_weights = [], []
    for queries, keys, bias in _spans(biases, block):
        scores_BNTS = multiply(q_BNTH[:, :, queries], k_BNTH[:, :, keys], b_dim=-1) + bias
        weights_BNTS = jax.nn.softmax(scores_BNTS, axis=-1).astype(operands)
        outputs.append(multiply(weights_BNTS, v_BNTH[:, :, keys]))
        all_weights.append(weights_BNTS)
    return _joined(outputs), (q_BNTH, k_BNTH, v_BNTH, biases, all_weights)


def _attend_backward(block, operands, saved, gradient_BNTH):
    q_BNTH, k_BNTH, v_BNTH, biases, all_weights = saved
    gradient_BNTH = gradient_BNTH.astype(operands)
    q_gradients = []
    k_gradients: list[jax.Array | float] = [0.0] * len(biases)
    v_gradients: list[jax.Array | float] = [0.0] * len(biases)
    for (queries, keys, _), weights in zip(_spans(biases, block), all_weights, strict=True):
        q, gradient = q_BNTH[:, :, queries], gradient_BNTH[:, :, queries]
        by_weight = multiply(gradient, v_BNTH[:, :, keys], b_dim=-1)
        exact = weights.astype(jnp.float32)
        mean = jnp.sum(exact * by_weight, axis=-1, keepdims=True)
        by_score = (exact * (by_weight - mean)).astype(operands)
        q_gradients.append(multiply(by_score, k_BNTH[:, :, keys]))
        by_key, by_value = _by_key(by_score, q), _by_key(weights, gradient)
        for j in range(keys.start // block, -(-keys.stop // block)):
            part = slice(j * block - keys.start, (j + 1) * block - keys.start)
            k_gradients[j] += by_key[:, :, part]
            v_gradients[j] += by_value[:, :, part]
    return _joined(q_gradients), _joined(k_gradients), _joined(v_gradients), None


attend.defvjp(_attend_forward, _attend_backward)


def _spans(biases: list[jax.Array], block: int) -> list[tuple[slice, slice, jax.Array]]:
    """(queries, keys, bias) of every block."""
    spans = []
    for i, bias in enumerate(biases):
        stop = i * block + bias.shape[-2]
        spans.append((slice(i * block, stop), slice(stop - bias.shape[-1], stop), bias))
    return spans


def _joined(blocks: list) -> jax.Array:
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=2)


def _by_key(a_BNTS: jax.Array, b_BNTH: jax.Array) -> jax.Array:
    """a^T b, [B, N, S, H]."""
    if a_BNTS.shape[-2] <= SLICED_UP_TO and a_BNTS.dtype == jnp.bfloat16:
        return multiply(transposed(a_BNTS), b_BNTH)
    return multiply(a_BNTS, b_BNTH, a_dim=-2)
