"""Summed losses and token counts; whoever has all the sums divides, once.

Sums over any split of a batch into microbatches or devices add up to the whole batch's. Logits are
either computed whole, or a part of the tokens and of the vocabulary at a time and never stored:
the gradient of the loss is made on the way, while a part's logits are there.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt_jax.data.batch import Batch
from gpt_jax.models import cpu
from gpt_jax.models.gpt import GPT, Params

VOCABULARY_PART = 12_288
"""Ids whose logits are computed at a time: of more, a CPU's products are slower."""
LOGIT_BYTES, CPU_LOGIT_BYTES = 1 << 27, 1 << 28
"""Of the float32 logits of the tokens that are taken at a time. A CPU adds up gradients of the
table for each part, which is as large as the logits of a thousand tokens."""


class LossSums(NamedTuple):
    """Sums over target tokens; all float32 scalars."""

    cross_entropy: jax.Array
    """Nats."""
    z_loss: jax.Array
    """Squared log-normalisers (PaLM, section 5), not yet weighted."""
    weight: jax.Array
    """Target tokens counted."""


def cross_entropy_sums(
    logits_BTV: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array
) -> LossSums:
    """Cross-entropy of next tokens, summed with weights, in float32.

    logits_BTV: [B, T, V]; ids that may not occur hold a very negative number.
    targets_BT: [B, T] integers in [0, V). weights_BT: [B, T], 0 = not counted.
    """
    logits_BTV = logits_BTV.astype(jnp.float32)
    log_normaliser_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    target_logit_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    weights_BT = weights_BT.astype(jnp.float32)
    return LossSums(
        cross_entropy=jnp.sum(weights_BT * (log_normaliser_BT - target_logit_BT)),
        z_loss=jnp.sum(weights_BT * jnp.square(log_normaliser_BT)),
        weight=jnp.sum(weights_BT),
    )


def batch_loss(
    model: GPT,
    params: Params,
    batch: Batch,
    z_loss: float = 0.0,
    dropout_key: jax.Array | None = None,
    prefix_BPD: jax.Array | None = None,
) -> tuple[jax.Array, LossSums]:
    """(cross-entropy + z_loss times z-loss, the sums) of a batch; the first has a gradient.

    prefix_BPD: as in `GPT.apply`.
    """
    whole = not in_parts(model)
    inputs = params, batch.tokens_BT, batch.segments_BT, dropout_key, whole, prefix_BPD
    return output_loss(model, params, model.apply(*inputs), batch, z_loss)


def output_loss(
    model: GPT, params: Params, y: jax.Array, batch: Batch, z_loss: float
) -> tuple[jax.Array, LossSums]:
    """`batch_loss` from logits, or from the last activations where it is computed in parts."""
    if not in_parts(model):
        sums = cross_entropy_sums(y, batch.targets_BT, batch.weights_BT)
        return sums.cross_entropy + z_loss * sums.z_loss, sums
    x_BTD = y
    if not model.execution.how.cpu:
        return _loss_by_tokens(model, params, x_BTD, batch, z_loss)
    table_VD = model.output_table(params)
    config = model.config
    options = _Options(z_loss, config.logit_soft_cap, model.execution.how.operands)
    rest = batch.targets_BT.reshape(-1), batch.weights_BT.astype(jnp.float32).reshape(-1)
    return loss_in_parts(x_BTD.reshape(-1, config.d_model), table_VD, *rest, options)


def in_parts(model: GPT) -> bool:
    """Whether the loss of a model is computed without its whole logits."""
    return model.execution.loss_in_parts and model.config.vocab_size > VOCABULARY_PART


def _loss_by_tokens(
    model: GPT, params: Params, x_BTD: jax.Array, batch: Batch, z_loss: float
) -> tuple[jax.Array, LossSums]:
    """`batch_loss` from the last activations, for accelerators: some tokens of every sequence at a
    time, with the whole vocabulary, or a device's part of it."""
    layout, axes = model.layout, model.output_axes

    def objective(x_BtD: jax.Array, weights: jax.Array, targets: jax.Array, counted: jax.Array):
        sums = cross_entropy_sums(model.logits(x_BtD, weights), targets, counted)
        return sums.cross_entropy + z_loss * sums.z_loss, sums

    def as_stored(gradient: jax.Array) -> jax.Array:
        return gradient if layout is None else layout.constrain(gradient, *axes)

    n_parts = _token_parts(model, *x_BTD.shape[:2])

    def split(x_BT: jax.Array) -> jax.Array:
        # Strided: each part takes tokens from every device along the sequence.
        return jnp.moveaxis(x_BT.reshape(x_BT.shape[0], -1, n_parts, *x_BT.shape[2:]), 2, 0)

    weights = model.output_weights(params)
    if layout is not None:  # gathered once, not for each part
        weights = layout.constrain(weights, *[axis if axis == "vocab" else None for axis in axes])
    parts = split(x_BTD), split(batch.targets_BT), split(batch.weights_BT)
    return _sum_parts(objective, as_stored, weights, *parts)


def _token_parts(model: GPT, n_batch: int, n_tokens: int) -> int:
    """A power of 2 that divides the tokens of a device's sequence, so that a part's logits are
    small."""
    layout = model.layout
    batch, vocab, stream = (
        1 if layout is None else layout.n_parts(axis)
        for axis in ("act_batch", "act_vocab", "act_stream_seq")
    )
    logit_bytes = 4 * n_batch * n_tokens * model.config.padded_vocab_size / (batch * vocab)
    n_parts = 1
    while logit_bytes / n_parts > LOGIT_BYTES and n_tokens % (2 * n_parts * stream) == 0:
        n_parts *= 2
    return n_parts


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_parts(objective, as_stored, weights, x_parts, targets, counted):
    """(sum of the objective, LossSums) over the parts on the leading dim of what follows weights.

    The gradient is made on the way forward, while a part's logits are there.
    as_stored: holds a gradient of the weights to where these are stored.
    """

    def add(total: tuple, part: tuple) -> tuple[tuple, None]:
        x, *rest = part
        return jax.tree.map(jnp.add, total, objective(x, weights, *rest)), None

    total, _ = jax.lax.scan(add, (jnp.zeros(()), no_loss()), (x_parts, targets, counted))
    return total


def _sum_parts_forward(objective, as_stored, weights, x_parts, targets, counted):
    gradients = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)

    def add(carry: tuple, part: tuple) -> tuple[tuple, jax.Array]:
        total, weight_gradient = carry
        x, *rest = part
        added, (x_gradient, more) = gradients(x, weights, *rest)
        total = jax.tree.map(jnp.add, total, added)
        return (total, as_stored(weight_gradient + as_stored(more))), x_gradient

    start = ((jnp.zeros(()), no_loss()), as_stored(jnp.zeros_like(weights)))
    (total, weight_gradient), x_gradients = jax.lax.scan(add, start, (x_parts, targets, counted))
    return total, (weight_gradient, x_gradients)


def _sum_parts_backward(objective, as_stored, saved, gradient):
    weight_gradient, x_gradients = saved
    scale = gradient[0]
    return scale * weight_gradient, (scale * x_gradients).astype(x_gradients.dtype), None, None


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
    table = _split_vocabulary(table_VD.astype(options.operands))

    def add(total: LossSums, part: _Tokens) -> tuple[LossSums, None]:
        _, sums, _ = _scores(part, table, options)
        return jax.tree.map(jnp.add, total, sums), None

    sums, _ = jax.lax.scan(add, no_loss(), _split_tokens(x_MD, targets_M, weights_M, table_VD))
    return sums.cross_entropy + options.z_loss * sums.z_loss, sums


def _forward(x_MD, table_VD, targets_M, weights_M, options):
    """The loss, and its gradients as what is saved for the backward pass."""
    table = _split_vocabulary(table_VD.astype(options.operands))
    parts = _split_tokens(x_MD, targets_M, weights_M, table_VD)

    def add(carry: tuple, part: _Tokens) -> tuple[tuple, jax.Array]:
        total, table_gradient = carry
        _, targets_R, weights_R = part
        scores, sums, normaliser_R = _scores(part, table, options)
        x_RD = part.x_RD.astype(options.operands)
        x_gradient, added = jnp.zeros(()), []
        for first, rows, scores_RV, old in zip(
            range(0, table_VD.shape[0], VOCABULARY_PART), table, scores, table_gradient, strict=True
        ):
            probability = jnp.exp(scores_RV - normaliser_R[:, None])
            is_target = targets_R[:, None] == first + jnp.arange(rows.shape[0])
            by_score = probability * (1 + 2 * options.z_loss * normaliser_R[:, None]) - is_target
            if options.soft_cap is not None:
                by_score *= 1 - jnp.square(scores_RV / options.soft_cap)
            by_score = (by_score * weights_R[:, None]).astype(options.operands)
            x_gradient += cpu.multiply(by_score, rows)
            added.append(old + cpu.multiply_from_left(by_score, x_RD))
        return (jax.tree.map(jnp.add, total, sums), added), x_gradient

    zeros = [jnp.zeros(rows.shape) for rows in table]
    (sums, table_gradient), x_gradient = jax.lax.scan(add, (no_loss(), zeros), parts)
    x_gradient = x_gradient.swapaxes(0, 1).reshape(-1, x_MD.shape[1])[: x_MD.shape[0]]
    objective = sums.cross_entropy + options.z_loss * sums.z_loss
    return (objective, sums), (x_gradient, jnp.concatenate(table_gradient))


def _backward(options, saved, gradient):
    x_gradient, table_gradient = saved
    return gradient[0] * x_gradient, gradient[0] * table_gradient, None, None


loss_in_parts.defvjp(_forward, _backward)


def _scores(part: _Tokens, table: list[jax.Array], options: _Options):
    """Logits of R tokens, a list by part of the vocabulary; their sums; their log-normalisers."""
    x_RD, targets_R, weights_R = part
    x_RD = x_RD.astype(options.operands)
    scores = [cpu.multiply(x_RD, rows, b_dim=-1) for rows in table]
    if options.soft_cap is not None:
        scores = [options.soft_cap * jnp.tanh(s / options.soft_cap) for s in scores]
    highest_R = functools.reduce(jnp.maximum, [jnp.max(s, axis=1) for s in scores])
    total_R = sum(jnp.sum(jnp.exp(s - highest_R[:, None]), axis=1) for s in scores)
    normaliser_R = highest_R + jnp.log(total_R)
    target_R = jnp.zeros(())
    for i, scores_RV in enumerate(scores):
        column_R = targets_R - i * VOCABULARY_PART
        inside_R = (column_R >= 0) & (column_R < scores_RV.shape[1])
        score_R = jnp.take_along_axis(scores_RV, column_R[:, None], axis=1, mode="clip")[:, 0]
        target_R += jnp.where(inside_R, score_R, 0.0)
    sums = LossSums(
        cross_entropy=jnp.sum(weights_R * (normaliser_R - target_R)),
        z_loss=jnp.sum(weights_R * jnp.square(normaliser_R)),
        weight=jnp.sum(weights_R),
    )
    return scores, sums, normaliser_R


def _split_vocabulary(table_VD: jax.Array) -> list[jax.Array]:
    n = table_VD.shape[0]
    return [table_VD[i : i + VOCABULARY_PART] for i in range(0, n, VOCABULARY_PART)]


def _split_tokens(x_MD, targets_M, weights_M, table_VD) -> _Tokens:
    """[parts, R, ...] each, of every parts-th token, so that parts take from every device alike."""
    n_tokens = x_MD.shape[0]
    n_parts = -(-n_tokens * table_VD.shape[0] * 4 // CPU_LOGIT_BYTES)

    def split(x: jax.Array) -> jax.Array:
        padding = [(0, -n_tokens % n_parts)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(-1, n_parts, *x.shape[1:]).swapaxes(0, 1)

    return _Tokens(split(x_MD), split(targets_M), split(weights_M))


def no_loss() -> LossSums:
    """The sums of no tokens."""
    return LossSums(*[jnp.zeros(())] * len(LossSums._fields))
