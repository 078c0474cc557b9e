"""Losses, attention weights and logit lens of a model on one text, as arrays on the host."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt_jax.models import probes
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives.cross_entropy import log_softmax

TOP = 5
"""Number of likeliest tokens that are reported of each distribution."""


class Look(NamedTuple):
    """Activations of one text: T tokens, L layers, N heads, at most TOP likeliest tokens K."""

    losses_T: np.ndarray
    """Nats of each token given those before it; nan for the first."""
    attention_LNTT: np.ndarray
    """Weights of each query (third dim) over the keys that it sees; with attention sinks they sum
    to less than 1."""
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
    inside = probes.activations(model, params, ids[None])
    log_p_LTV = log_softmax(probes.lens(model, params, inside["stream"][:, 0]))
    top, ids_LTK = jax.lax.top_k(log_p_LTV, min(TOP, log_p_LTV.shape[-1]))
    final_TV = log_softmax(inside["logits"][0])
    losses = -jnp.take_along_axis(final_TV[:-1], ids[1:, None], axis=1)[:, 0]
    return {
        "losses_T": jnp.concatenate([jnp.full(1, jnp.nan), losses]),
        "attention_LNTT": inside["weights"][:, 0],
        "ids_LTK": ids_LTK,
        "probabilities_LTK": jnp.exp(top),
        "entropy_LT": -jnp.sum(jnp.exp(log_p_LTV) * log_p_LTV, axis=-1),
    }
