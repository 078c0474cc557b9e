"""The loss of a batch without its whole logits: a part of the tokens and of the vocabulary at a
time, whose gradient is made on the way, while a part's logits are there.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt_jax.cost import blocks
from gpt_jax.data.batch import Batch
from gpt_jax.models import cpu
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.transformer import soft_cap
from gpt_jax.objectives.cross_entropy import (
    LossSums,
    cross_entropy_sums,
    no_loss,
    target_scores,
    weighted_sums,
)
from gpt_jax.parallel.sharding import Axes, Layout


def loss_of_activations(
    model: GPT, params: Params, x_BTD: jax.Array, batch: Batch, z_loss: float
) -> tuple[jax.Array, LossSums]:
    """(cross-entropy and weighted z-loss, the sums) of a batch from its last activations."""
    if not model.execution.how.cpu_forms:
        return _loss_by_tokens(model, params, x_BTD, batch, z_loss)
    table_VD = model.output_table(params)
    config = model.config
    options = _Options(z_loss, config.logit_soft_cap, model.execution.how.operands)
    rest = batch.targets_BT.reshape(-1), batch.weights_BT.astype(jnp.float32).reshape(-1)
    return loss_in_parts(x_BTD.reshape(-1, config.d_model), table_VD, *rest, options)


def _loss_by_tokens(
    model: GPT, params: Params, x_BTD: jax.Array, batch: Batch, z_loss: float
) -> tuple[jax.Array, LossSums]:
    """`batch_loss` from the last activations, for accelerators: some tokens of every sequence at a
    time, with the whole vocabulary, or a device's part of it.

    Dims of the devices that split the batch (P) and the sequence (S) stand in front: each adds up
    a gradient of the matrix by itself, and those of all are added once.
    """
    layout = model.layout
    n_batch, n_tokens = x_BTD.shape[:2]
    P = S = 1
    alone = model  # computes a device's tokens: P and S are not its dims
    if layout is not None and n_batch % layout.batch_parts == 0:
        P, S = layout.batch_parts, layout.sequence_parts
        kept = layout.replicated | {"act_batch", "act_seq"}
        alone = dataclasses.replace(model, layout=dataclasses.replace(layout, replicated=kept))

    def objective(x_btD: jax.Array, matrix: jax.Array, targets: jax.Array, counted: jax.Array):
        logits = alone.logits(x_btD, matrix)
        sums = cross_entropy_sums(logits, targets, counted, masked=True)
        return sums.cross_entropy + z_loss * sums.z_loss, sums

    def split(x_BT: jax.Array) -> jax.Array:
        # Strided: each part takes tokens from every device along the sequence.
        shape = (P, n_batch // P, S, n_tokens // (S * n_parts), n_parts, *x_BT.shape[2:])
        return jnp.moveaxis(x_BT.reshape(shape), (4, 0, 2), (0, 1, 2))

    n_parts = token_parts(model, n_batch, n_tokens)
    parts = split(x_BTD), split(batch.targets_BT), split(batch.weights_BT)
    placement = _Placement(layout, model.output_axes, P * S > 1)
    return _sum_parts(objective, placement, model.output_matrix(params), *parts)


@dataclasses.dataclass(frozen=True)
class _Placement:
    """Sharding of the output matrix and its gradients while the loss is computed in parts."""

    layout: Layout | None
    axes: Axes
    several: bool
    """Whether several devices split the tokens."""

    def gathered(self, matrix: jax.Array) -> jax.Array:
        """Whole along the width; once, not for each part."""
        return matrix if self.layout is None else self.layout.constrain(matrix, *self._gathered())

    def apart(self, gradients: jax.Array) -> jax.Array:
        """[P, S, ...]: each device's own."""
        if self.layout is None or not self.several:
            return gradients
        return self.layout.constrain(gradients, "act_batch", "act_seq", *self._gathered())

    def as_stored(self, gradient: jax.Array) -> jax.Array:
        return gradient if self.layout is None else self.layout.constrain(gradient, *self.axes)

    def _gathered(self) -> Axes:
        return tuple(axis if axis == "vocab" else None for axis in self.axes)


def token_parts(model: GPT, n_batch: int, n_tokens: int) -> int:
    """A power of 2 that divides the tokens of a device's sequence, so that a part's logits are
    small."""
    layout = model.layout
    batch, vocab, stream = (
        1 if layout is None else layout.n_parts(axis)
        for axis in ("act_batch", "act_vocab", "act_stream_seq")
    )
    logit_bytes = 4 * n_batch * n_tokens * model.config.padded_vocab_size / (batch * vocab)
    n_parts = 1
    while logit_bytes / n_parts > blocks.LOGIT_BYTES and n_tokens % (2 * n_parts * stream) == 0:
        n_parts *= 2
    return n_parts


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_parts(objective, placement, matrix, x_parts, targets, counted):
    """(sum of the objective, LossSums) over the parts on the leading dim of what follows matrix,
    and the two dims of devices behind it.

    The gradient is made on the way forward, while a part's logits are there.
    """
    matrix = placement.gathered(matrix)

    def add(total: tuple, part: tuple) -> tuple[tuple, None]:
        x, *rest = part
        added = _each_device(objective)(x, matrix, *rest)
        return _add(total, added), None

    total, _ = jax.lax.scan(add, (jnp.zeros(()), no_loss()), (x_parts, targets, counted))
    return total


def _each_device(function):
    """function(x, matrix, targets, counted), over two leading dims of all but the matrix."""
    in_axes = (0, None, 0, 0)
    return jax.vmap(jax.vmap(function, in_axes), in_axes)


def _add(total: tuple, added: tuple) -> tuple:
    return jax.tree.map(lambda x, y: x + jnp.sum(y), total, added)


def _sum_parts_forward(objective, placement, matrix, x_parts, targets, counted):
    matrix = placement.gathered(matrix)
    gradients = _each_device(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))

    def add(carry: tuple, part: tuple) -> tuple[tuple, jax.Array]:
        total, matrix_gradient = carry
        x, *rest = part
        added, (x_gradient, more) = gradients(x, matrix, *rest)
        return (_add(total, added), placement.apart(matrix_gradient + more)), x_gradient

    zeros = jnp.zeros((*x_parts.shape[1:3], *matrix.shape), matrix.dtype)
    start = ((jnp.zeros(()), no_loss()), placement.apart(zeros))
    (total, matrix_gradient), x_gradients = jax.lax.scan(add, start, (x_parts, targets, counted))
    matrix_gradient = placement.as_stored(jnp.sum(matrix_gradient, axis=(0, 1)))
    return total, (matrix_gradient, x_gradients)


def _sum_parts_backward(objective, placement, saved, gradient):
    matrix_gradient, x_gradients = saved
    scale = gradient[0]
    return scale * matrix_gradient, (scale * x_gradients).astype(x_gradients.dtype), None, None


_sum_parts.defvjp(_sum_parts_forward, _sum_parts_backward)


class _Options(NamedTuple):
    z_loss: float
    soft_cap: float | None
    operands: Any


class _Tokens(NamedTuple):
    x_RD: jax.Array
    targets_R: jax.Array
    weights_R: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def loss_in_parts(
    x_MD: jax.Array,
    table_VD: jax.Array,
    targets_M: jax.Array,
    weights_M: jax.Array,
    options: _Options,
) -> tuple[jax.Array, LossSums]:
    """`batch_loss` from the last activations and the table of output embeddings.

    x_MD, table_VD: float32; targets_M: [M] integers in [0, V); weights_M: [M] float32.
    """
    table = split_vocabulary(table_VD.astype(options.operands))

    def add(total: LossSums, part: _Tokens) -> tuple[LossSums, None]:
        _, sums, _ = _scores(part, table, options)
        return jax.tree.map(jnp.add, total, sums), None

    parts = _split_all(_Tokens(x_MD, targets_M, weights_M), len(table_VD))
    sums, _ = jax.lax.scan(add, no_loss(), parts)
    return sums.cross_entropy + options.z_loss * sums.z_loss, sums


def _forward(x_MD, table_VD, targets_M, weights_M, options):
    """The loss, and its gradients as what is saved for the backward pass."""
    table = split_vocabulary(table_VD.astype(options.operands))
    parts = _split_all(_Tokens(x_MD, targets_M, weights_M), len(table_VD))

    def add(carry: tuple, part: _Tokens) -> tuple[tuple, jax.Array]:
        total, table_gradient = carry
        _, targets_R, weights_R = part
        scores, sums, normaliser_R = _scores(part, table, options)
        x_RD = part.x_RD.astype(options.operands)
        x_gradient, added = jnp.zeros(()), []
        first = 0
        for rows, scores_RV, old in zip(table, scores, table_gradient, strict=True):
            probability = jnp.exp(scores_RV - normaliser_R[:, None])
            is_target = targets_R[:, None] == first + jnp.arange(rows.shape[0])
            by_score = probability * (1 + 2 * options.z_loss * normaliser_R[:, None]) - is_target
            if options.soft_cap is not None:
                by_score *= 1 - jnp.square(scores_RV / options.soft_cap)
            by_score = (by_score * weights_R[:, None]).astype(options.operands)
            x_gradient += cpu.multiply(by_score, rows)
            added.append(old + cpu.multiply_from_left(by_score, x_RD))
            first += rows.shape[0]
        return (jax.tree.map(jnp.add, total, sums), added), x_gradient

    zeros = [jnp.zeros(rows.shape) for rows in table]
    (sums, table_gradient), x_gradient = jax.lax.scan(add, (no_loss(), zeros), parts)
    x_gradient = join_tokens(x_gradient, x_MD.shape[0])
    objective = sums.cross_entropy + options.z_loss * sums.z_loss
    return (objective, sums), (x_gradient, jnp.concatenate(table_gradient))


def _split_all(tokens: _Tokens, vocab_size: int) -> _Tokens:
    n_parts = cpu_token_parts(len(tokens.x_RD), vocab_size)
    return jax.tree.map(lambda x: split_tokens(x, n_parts), tokens)


def _backward(options, saved, gradient):
    x_gradient, table_gradient = saved
    return gradient[0] * x_gradient, gradient[0] * table_gradient, None, None


loss_in_parts.defvjp(_forward, _backward)


def _scores(part: _Tokens, table: list[jax.Array], options: _Options):
    """Logits of R tokens, a list by part of the vocabulary; their sums; their log-normalisers."""
    x_RD, targets_R, weights_R = part
    scores = logit_parts(x_RD, table, options.soft_cap)
    target_R, normaliser_R = target_scores(scores, targets_R)
    return scores, weighted_sums(target_R, normaliser_R, weights_R), normaliser_R


def logit_parts(x_RD: jax.Array, table: Sequence[jax.Array], cap: float | None) -> list[jax.Array]:
    """Logits [R, v] of each part of the table of output embeddings, float32.

    table: of `split_vocabulary`; x_RD is rounded to its type.
    """
    x_RD = x_RD.astype(table[0].dtype)
    return [soft_cap(cpu.multiply(x_RD, rows, b_dim=-1), cap) for rows in table]


def split_vocabulary(table_VD: jax.Array) -> list[jax.Array]:
    """`GPT.output_table` in parts of blocks.VOCABULARY_PART ids, the last one shorter."""
    n, size = table_VD.shape[0], blocks.VOCABULARY_PART
    return [table_VD[i : i + size] for i in range(0, n, size)] if n > size else [table_VD]


def split_tokens(x: jax.Array, n_parts: int) -> jax.Array:
    """[M, ...] as [parts, R, ...] of every parts-th row, so that parts take from every device
    alike; zeros are added at the end where M is no multiple of the parts."""
    padding = [(0, -x.shape[0] % n_parts)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(-1, n_parts, *x.shape[1:]).swapaxes(0, 1)


def join_tokens(x: jax.Array, n_tokens: int) -> jax.Array:
    """Undo `split_tokens`."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:n_tokens]


def cpu_token_parts(n_tokens: int, vocab_size: int) -> int:
    """Parts of the tokens whose float32 logits are blocks.CPU_LOGIT_BYTES at most."""
    return -(-n_tokens * vocab_size * 4 // blocks.CPU_LOGIT_BYTES)
