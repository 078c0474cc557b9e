"""The one cross-entropy: log-softmax at the targets, and the sums that losses are made of.

Sums over any split of a batch into microbatches or devices add up to the whole batch's: whoever
has all of them divides, once. Logits may be whole or in parts of the vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


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


def log_normaliser(parts: Sequence[jax.Array]) -> jax.Array:
    """log sum exp over the last dim of all parts together, [...]; parts: float32 logits [..., v].

    Logits of minus infinity count for nothing, as long as one is finite.
    """
    highest = functools.reduce(jnp.maximum, [jnp.max(part, axis=-1) for part in parts])
    highest = jax.lax.stop_gradient(highest)
    total = sum(jnp.sum(jnp.exp(part - highest[..., None]), axis=-1) for part in parts)
    return highest + jnp.log(total)


def log_softmax(logits: jax.Array) -> jax.Array:
    """Log-probabilities over the last dim, float32."""
    logits = logits.astype(jnp.float32)
    return logits - log_normaliser([logits])[..., None]


def target_scores(
    parts: Sequence[jax.Array], targets: jax.Array, masked: bool = False
) -> tuple[jax.Array, jax.Array]:
    """(logit of the target, log-normaliser), each [...]; their difference is log p of the target.

    parts: float32 logits [..., v] of consecutive parts of the vocabulary; targets: [...] integers,
    counted over all parts. masked: sum the logits where the target's id is, instead of reading it
    by its index: the gradient of that is a scatter into whole float32 logits, which XLA does not
    fuse on accelerators. On a CPU the index is faster.
    """
    begin, at_target = 0, jnp.zeros(())
    for part in parts:
        column = targets - begin
        begin += part.shape[-1]
        if masked:
            ids = jax.lax.broadcasted_iota(jnp.int32, part.shape, part.ndim - 1)
            chosen = jnp.where(ids == column[..., None], part, 0.0)
            at_target = at_target + jnp.sum(chosen, axis=-1)
            continue
        inside = (column >= 0) & (column < part.shape[-1])
        mode = None if len(parts) == 1 else "clip"
        here = jnp.take_along_axis(part, column[..., None], axis=-1, mode=mode)[..., 0]
        at_target = here if len(parts) == 1 else at_target + jnp.where(inside, here, 0.0)
    return at_target, log_normaliser(parts)


def cross_entropy_sums(
    logits: jax.Array | Sequence[jax.Array],
    targets: jax.Array,
    weights: jax.Array,
    masked: bool = False,
) -> LossSums:
    """Cross-entropy of targets, summed with weights, in float32.

    logits: [..., V], or a list of parts of the vocabulary; ids that may not occur hold a very
    negative number. targets: [...] integers in [0, V). weights: [...], 0 = not counted.
    masked: as in `target_scores`.
    """
    parts = [logits] if isinstance(logits, jax.Array) else logits
    scores = target_scores([part.astype(jnp.float32) for part in parts], targets, masked)
    return weighted_sums(*scores, weights)


def weighted_sums(at_target: jax.Array, normaliser: jax.Array, weights: jax.Array) -> LossSums:
    """The sums of `target_scores`, with weights."""
    weights = weights.astype(jnp.float32)
    return LossSums(
        cross_entropy=jnp.sum(weights * (normaliser - at_target)),
        z_loss=jnp.sum(weights * jnp.square(normaliser)),
        weight=jnp.sum(weights),
    )


def no_loss() -> LossSums:
    """The sums of no tokens."""
    return LossSums(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))
