"""How the next token is chosen from logits: filters on [B, V], and the draw.

A logit of minus infinity cannot be drawn. Must not import flax or a model.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gpt_jax.inference.settings import SamplingConfig


def penalise_repetition(logits_BV: jax.Array, seen_BV: jax.Array, penalty: float) -> jax.Array:
    """Logits of seen tokens divided by the penalty, or multiplied where negative.

    Keskar et al. (2019), section 4.1, with the sign treated as the transformers library does: the
    paper's division would reward a negative logit.
    """
    penalised = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(seen_BV, penalised, logits_BV)


def keep_top_k(logits_BV: jax.Array, k: int | jax.Array) -> jax.Array:
    """The k highest logits (Fan et al. 2018), and what ties with the last of them.

    k: a number, or one for each row [B, 1].
    """
    if isinstance(k, int):
        highest, _ = jax.lax.top_k(logits_BV, min(k, logits_BV.shape[-1]))
        lowest = highest[:, -1:]
    else:
        descending = jnp.sort(logits_BV, axis=-1, descending=True)
        last = jnp.minimum(k, logits_BV.shape[-1]) - 1
        lowest = jnp.take_along_axis(descending, last.astype(jnp.int32), axis=-1)
    return jnp.where(logits_BV < lowest, -jnp.inf, logits_BV)


def keep_top_p(logits_BV: jax.Array, p: float | jax.Array) -> jax.Array:
    """The fewest likeliest tokens with total probability >= p (Holtzman et al. 2020), and ties.

    p: a number, or one for each row [B, 1].
    """
    descending = jnp.sort(logits_BV, axis=-1, descending=True)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    # The likeliest is kept whatever rounding does to `before`.
    kept = (before < p).at[:, 0].set(True)
    lowest = jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV < lowest, -jnp.inf, logits_BV)


def keep_min_p(logits_BV: jax.Array, p: float) -> jax.Array:
    """Tokens with at least p times the highest probability (Nguyen et al. 2024)."""
    highest = jnp.max(logits_BV, axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lowest = highest + float(np.log(p))
    return jnp.where(logits_BV < lowest, -jnp.inf, logits_BV)


def likeliest(logits_BV: jax.Array) -> jax.Array:
    """The id with the highest logit, the first of several, [B]: argmax, as two plain reductions.

    XLA computes an argmax on CPU one number after another.
    """
    ids = jnp.arange(logits_BV.shape[-1])
    highest = logits_BV == jnp.max(logits_BV, axis=-1, keepdims=True)
    return jnp.min(jnp.where(highest, ids, ids[-1]), axis=-1)


def choose_tokens(
    logits_BV: jax.Array, seen_BV: jax.Array, keys_B: jax.Array, sampling: SamplingConfig
) -> jax.Array:
    """The next token of each row, [B].

    The order is that of the transformers library: penalty, temperature, top-k, top-p, min-p; each
    filter sees what the one before left.
    """
    if sampling.repetition_penalty != 1:
        logits_BV = penalise_repetition(logits_BV, seen_BV, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return likeliest(logits_BV)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        logits_BV = keep_top_k(logits_BV, sampling.top_k)
    if sampling.top_p is not None:
        logits_BV = keep_top_p(logits_BV, sampling.top_p)
    if sampling.min_p is not None:
        logits_BV = keep_min_p(logits_BV, sampling.min_p)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV)
