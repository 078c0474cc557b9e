"""Losses, attention weights and logit lens of a model on one text, as arrays on the host."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.layers import alibi_slopes

TOP = 5
"""Number of likeliest tokens that are reported of each distribution."""


class Look(NamedTuple):
    """Activations of one text: T tokens, L layers, N heads, at most TOP likeliest tokens K."""

    losses_T: np.ndarray
    """Nats of each token given those before it; nan for the first."""
    attention_LNTT: np.ndarray
    """Weights of each query (third dim) over the keys that it sees."""
    ids_LTK: np.ndarray
    """Logit lens (nostalgebraist 2020): the TOP likeliest next tokens after each layer, if the
    stream went to the final norm and the output table from there; the last row is the model's."""
    probabilities_LTK: np.ndarray
    entropy_LT: np.ndarray
    """Entropy of the logit lens's distributions, nats."""


def look(model: GPT, params: Params, ids: np.ndarray) -> Look:
    """Compute the activations of a text of token ids [T], without dropout."""
    computed = jax.jit(lambda params, ids: _look(model, params, ids))(params, jnp.asarray(ids))
    return Look(**jax.device_get(computed))


def _look(model: GPT, params: Params, ids: jax.Array) -> dict[str, jax.Array]:
    inside = model.activations(params, ids[None])
    scores_LNTT = inside["scores"][:, 0].astype(jnp.float32)
    log_p_LTV = jax.nn.log_softmax(model.lens(params, inside["stream"][:, 0]))
    top, ids_LTK = jax.lax.top_k(log_p_LTV, min(TOP, log_p_LTV.shape[-1]))
    final_TV = jax.nn.log_softmax(inside["logits"][0])
    losses = -jnp.take_along_axis(final_TV[:-1], ids[1:, None], axis=1)[:, 0]
    return {
        "losses_T": jnp.concatenate([jnp.full(1, jnp.nan), losses]),
        "attention_LNTT": _weights(model, scores_LNTT),
        "ids_LTK": ids_LTK,
        "probabilities_LTK": jnp.exp(top),
        "entropy_LT": -jnp.sum(jnp.exp(log_p_LTV) * log_p_LTV, axis=-1),
    }


def _weights(model: GPT, scores_LNTT: jax.Array) -> jax.Array:
    """Softmax over the keys that a query sees, in the window of a banded layer."""
    config, T = model.config, scores_LNTT.shape[-1]
    distance = jnp.arange(T)[:, None] - jnp.arange(T)[None]
    seen = []
    for layer in range(config.n_layers):
        kind = config.layer_pattern[layer % len(config.layer_pattern)]
        window = config.window if kind == "banded" else None
        seen.append((distance >= 0) & (distance < (window or T)))
    seen_L1TT = jnp.stack(seen)[:, None]
    if config.position == "alibi":
        slopes_N11 = jnp.asarray(alibi_slopes(config.n_heads))[:, None, None]
        scores_LNTT = scores_LNTT - slopes_N11 * distance
    return jax.nn.softmax(jnp.where(seen_L1TT, scores_LNTT, -jnp.inf), axis=-1)
