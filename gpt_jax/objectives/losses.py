"""Summed losses and token counts; whoever has all the sums divides, once.

Sums over any split of a batch into microbatches or devices add up to the whole batch's. Logits are
either computed whole, or a part of the tokens and of the vocabulary at a time and never stored:
the gradient of the loss is made on the way, while a part's logits are there.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt_jax.config import ModelConfig, TrainConfig
from gpt_jax.cost.blocks import CPU_LOGIT_BYTES, LOGIT_BYTES
from gpt_jax.data.batch import Batch
from gpt_jax.models import cpu
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.parallel.sharding import Axes, Layout

VOCABULARY_PART = 12_288
"""Ids whose logits are computed at a time: of more, a CPU's products are slower."""


class RouterSums(NamedTuple):
    """Sums over target tokens and over layers; all float32 scalars, not yet weighted."""

    load_balance: jax.Array
    """Switch's loss (see `router_sums`): 1 a token and layer if experts share tokens evenly."""
    z_loss: jax.Array
    """Squared log-normalisers of router logits (ST-MoE, equation 5)."""
    dropped: jax.Array
    """Choices that found no place with their expert (`model.expert_capacity_factor`), over the
    choices of a token."""


class LossSums(NamedTuple):
    """Sums over target tokens; all float32 scalars."""

    cross_entropy: jax.Array
    """Nats."""
    z_loss: jax.Array
    """Squared log-normalisers (PaLM, section 5), not yet weighted."""
    weight: jax.Array
    """Target tokens counted."""
    router: RouterSums | None = None
    """Sums of the router's losses; None for a model without experts."""
    distillation: jax.Array | None = None
    """Divergence from a teacher, nats, not yet weighted (`gpt_jax.objectives.distillation`)."""


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


def router_sums(config: ModelConfig, logits_LBTE: jax.Array, weights_BT: jax.Array) -> RouterSums:
    """The losses that keep routers balanced, summed with weights, in float32.

    Load balance is Fedus et al. 2021 (arXiv:2101.03961), equations 4 to 6: E sum_i f_i P_i, f_i the
    share of choices that fell on expert i and P_i its mean probability. It is a product of means,
    so over what is decided once: each layer's, over the target tokens of each *sequence*, times
    these tokens. Any split of the batch into sequences adds up to the same. (Means over a larger
    group would let the experts' shares differ between sequences more.) Only P has a gradient.
    """
    from gpt_jax.models.experts import choose

    n_experts, n_choices = logits_LBTE.shape[-1], config.n_experts_per_token
    _, choices_LBTK = choose(logits_LBTE, n_choices)
    chosen_LBTE = jnp.sum(jax.nn.one_hot(choices_LBTK, n_experts), axis=-2)
    weights_BT = weights_BT.astype(jnp.float32)
    tokens_B = jnp.sum(weights_BT, axis=1)
    weights_BT1 = weights_BT[..., None]
    chosen_LBE = jnp.sum(weights_BT1 * chosen_LBTE, axis=2) / n_choices
    probable_LBE = jnp.sum(weights_BT1 * jax.nn.softmax(logits_LBTE, axis=-1), axis=2)
    balance_LB = n_experts * jnp.sum(chosen_LBE * probable_LBE, axis=-1)
    dropped = jnp.zeros(())
    if config.expert_capacity is not None:
        before_LBTE = jnp.cumsum(chosen_LBTE, axis=2) - chosen_LBTE
        lost_LBTE = jnp.where(before_LBTE >= config.expert_capacity, chosen_LBTE, 0.0)
        dropped = jnp.sum(weights_BT1 * lost_LBTE) / n_choices
    return RouterSums(
        # (chosen / tokens) (probable / tokens) tokens
        load_balance=jnp.sum(balance_LB / jnp.maximum(tokens_B, 1.0)),
        z_loss=jnp.sum(weights_BT * jnp.square(jax.nn.logsumexp(logits_LBTE, axis=-1))),
        dropped=dropped,
    )


class LossWeights(NamedTuple):
    """Weight of each auxiliary loss that is added to the cross-entropy."""

    z_loss: float = 0.0
    router_load_balance: float = 0.0
    router_z_loss: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig) -> "LossWeights":
        return cls(config.z_loss, config.router_load_balance_loss, config.router_z_loss)


NO_FURTHER_LOSS = LossWeights()


def batch_loss(
    model: GPT,
    params: Params,
    batch: Batch,
    weights: LossWeights = NO_FURTHER_LOSS,
    dropout_key: jax.Array | None = None,
    prefix_BPD: jax.Array | None = None,
) -> tuple[jax.Array, LossSums]:
    """(cross-entropy and weighted further losses, the sums) of a batch; the first has a gradient.

    Routers' losses are added for each layer, as in Switch. prefix_BPD: as in `GPT.apply`.
    """
    whole = not in_parts(model)
    texts = params, batch.tokens_BT, batch.segments_BT
    inputs = *texts, dropout_key, whole, prefix_BPD, batch.positions_BT
    if model.config.n_experts is None:
        return output_loss(model, params, model.apply(*inputs), batch, weights.z_loss)
    y, router_logits = model.apply_with_routers(*inputs)
    objective, sums = output_loss(model, params, y, batch, weights.z_loss)
    router = router_sums(model.config, router_logits, batch.weights_BT)
    objective += weights.router_load_balance * router.load_balance
    objective += weights.router_z_loss * router.z_loss
    return objective, sums._replace(router=router)


def output_loss(
    model: GPT, params: Params, y: jax.Array, batch: Batch, z_loss: float
) -> tuple[jax.Array, LossSums]:
    """`batch_loss` from logits, or from the last activations where it is computed in parts; without
    the routers' losses."""
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
    time, with the whole vocabulary, or a device's part of it.

    Dims of the devices that split the batch (P) and the sequence (S) stand in front: each adds up
    a gradient of the weights by itself, and those of all are added once.
    """
    layout = model.layout
    n_batch, n_tokens = x_BTD.shape[:2]
    P = S = 1
    alone = model  # computes a device's tokens: P and S are not its dims
    if layout is not None and n_batch % layout.batch_parts == 0:
        P, S = layout.batch_parts, layout.sequence_parts
        kept = layout.replicated | {"act_batch", "act_seq"}
        alone = dataclasses.replace(model, layout=dataclasses.replace(layout, replicated=kept))

    def objective(x_btD: jax.Array, weights: jax.Array, targets: jax.Array, counted: jax.Array):
        sums = cross_entropy_sums(alone.logits(x_btD, weights), targets, counted)
        return sums.cross_entropy + z_loss * sums.z_loss, sums

    def split(x_BT: jax.Array) -> jax.Array:
        # Strided: each part takes tokens from every device along the sequence.
        shape = (P, n_batch // P, S, n_tokens // (S * n_parts), n_parts, *x_BT.shape[2:])
        return jnp.moveaxis(x_BT.reshape(shape), (4, 0, 2), (0, 1, 2))

    n_parts = token_parts(model, n_batch, n_tokens)
    parts = split(x_BTD), split(batch.targets_BT), split(batch.weights_BT)
    of_weights = _Placement(layout, model.output_axes, P * S > 1)
    return _sum_parts(objective, of_weights, model.output_weights(params), *parts)


@dataclasses.dataclass(frozen=True)
class _Placement:
    """Where the output weights and their gradients lie while the loss is computed in parts."""

    layout: Layout | None
    axes: Axes
    several: bool
    """Whether several devices split the tokens."""

    def gathered(self, weights: jax.Array) -> jax.Array:
        """Whole along the width; once, not for each part."""
        return weights if self.layout is None else self.layout.constrain(weights, *self._gathered())

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
    while logit_bytes / n_parts > LOGIT_BYTES and n_tokens % (2 * n_parts * stream) == 0:
        n_parts *= 2
    return n_parts


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_parts(objective, placement, weights, x_parts, targets, counted):
    """(sum of the objective, LossSums) over the parts on the leading dim of what follows weights,
    and the two dims of devices behind it.

    The gradient is made on the way forward, while a part's logits are there.
    """
    weights = placement.gathered(weights)

    def add(total: tuple, part: tuple) -> tuple[tuple, None]:
        x, *rest = part
        added = _each_device(objective)(x, weights, *rest)
        return _add(total, added), None

    total, _ = jax.lax.scan(add, (jnp.zeros(()), no_loss()), (x_parts, targets, counted))
    return total


def _each_device(function):
    """function(x, weights, targets, counted), over two leading dims of all but the weights."""
    in_axes = (0, None, 0, 0)
    return jax.vmap(jax.vmap(function, in_axes), in_axes)


def _add(total: tuple, added: tuple) -> tuple:
    return jax.tree.map(lambda x, y: x + jnp.sum(y), total, added)


def _sum_parts_forward(objective, placement, weights, x_parts, targets, counted):
    weights = placement.gathered(weights)
    gradients = _each_device(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))

    def add(carry: tuple, part: tuple) -> tuple[tuple, jax.Array]:
        total, weight_gradient = carry
        x, *rest = part
        added, (x_gradient, more) = gradients(x, weights, *rest)
        return (_add(total, added), placement.apart(weight_gradient + more)), x_gradient

    zeros = jnp.zeros((*x_parts.shape[1:3], *weights.shape), weights.dtype)
    start = ((jnp.zeros(()), no_loss()), placement.apart(zeros))
    (total, weight_gradient), x_gradients = jax.lax.scan(add, start, (x_parts, targets, counted))
    weight_gradient = placement.as_stored(jnp.sum(weight_gradient, axis=(0, 1)))
    return total, (weight_gradient, x_gradients)


def _sum_parts_backward(objective, placement, saved, gradient):
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
    return LossSums(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


def no_sums(config: ModelConfig, taught: bool = False) -> LossSums:
    """The sums of no tokens, for a model; taught: that learns from a teacher."""
    sums = no_loss()
    if taught:
        sums = sums._replace(distillation=jnp.zeros(()))
    if config.n_experts is None:
        return sums
    return sums._replace(router=RouterSums(jnp.zeros(()), jnp.zeros(()), jnp.zeros(())))
