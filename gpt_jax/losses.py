"""Summed losses and token counts; whoever has all the sums divides, once.

Sums over any split of a batch into microbatches or devices add up to the whole batch's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


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
