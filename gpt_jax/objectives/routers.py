"""The losses that keep the routers of experts balanced."""

import jax
import jax.numpy as jnp

from gpt_jax.config import ModelConfig
from gpt_jax.models.experts import choose
from gpt_jax.objectives.cross_entropy import RouterSums, log_normaliser


def router_sums(config: ModelConfig, logits_LBTE: jax.Array, weights_BT: jax.Array) -> RouterSums:
    """The losses that keep routers balanced, summed with weights, in float32.

    Load balance is Fedus et al. 2021 (arXiv:2101.03961), equations 4 to 6: E sum_i f_i P_i, f_i the
    share of choices that fell on expert i and P_i its mean probability. It is a product of means,
    so over what is decided once: each layer's, over the target tokens of each *sequence*, times
    these tokens. Any split of the batch into sequences adds up to the same. (Means over a larger
    group would let the experts' shares differ between sequences more.) Only P has a gradient.
    """
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
        z_loss=jnp.sum(weights_BT * jnp.square(log_normaliser([logits_LBTE]))),
        dropped=dropped,
    )
