"""The compiled half of serving: rows of one key-value cache, filled and decoded.

The batch has a fixed number of rows. A request takes a free one: its prompt is computed alone and
its keys and values are written there; each step then gives every row its next token. What a row
becomes depends on its own prompt, settings and seed alone. Must not import flax.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt_jax.inference.sampling import keep_top_k, keep_top_p, likeliest
from gpt_jax.models.decoding import apply_cached, init_cache
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.transformer import Cache
from gpt_jax.objectives.cross_entropy import log_softmax

Array = Any
"""A numpy array, or a jax.Array."""
N_LIKELIEST = 20
"""Alternatives that a step returns for each token, where any request asks for them."""
N_BANNED = 32
"""Tokens that a row may be forbidden to draw."""


class Step(NamedTuple):
    """Inputs of a decoding step: arrays of B rows, on the host or on the device."""

    token_B: Array
    """The last token, of which the key is computed and after which the next one comes."""
    position_B: Array
    """Its place in the text."""
    temperature_B: Array
    """0 takes the likeliest token."""
    top_k_B: Array
    """The vocabulary's size takes every token."""
    top_p_B: Array
    seed_B: Array
    """uint32."""
    number_B: Array
    """Index of the choice among those that share a seed."""
    drawn_B: Array
    """Tokens drawn so far: with the seed, the key of the next draw."""
    banned_BE: Array
    """Ids of up to E = N_BANNED tokens that are not drawn; the others are beyond the vocabulary."""
    tells: Array
    """Whether the likeliest tokens are asked for, by any row: a scalar."""


class Next(NamedTuple):
    """Outputs of a decoding step, [B] or [B, K] with K = min(N_LIKELIEST, vocab_size)."""

    token_B: jax.Array
    log_probability_B: jax.Array
    """Nats, of the model's own distribution: before temperature, filters and bans."""
    likeliest_BK: jax.Array
    """Zeros where nobody asks for them, and so are their probabilities."""
    log_probabilities_BK: jax.Array


@functools.partial(jax.jit, static_argnames="model", donate_argnames="cache")
def fill_row(
    model: GPT, params: Params, cache: Cache, tokens_1T: jax.Array, row: jax.Array
) -> Cache:
    """The cache with a prompt's keys and values as the row's; tokens beyond the prompt are padding
    that no query sees before it is overwritten."""
    n_slots = cache[0]["key"].shape[-2]
    positions_1T = jnp.arange(tokens_1T.shape[1])[None]
    _, filled = apply_cached(model, params, tokens_1T, positions_1T, init_cache(model, 1, n_slots))
    first = row * model.config.kv_heads

    def write(all_CSH: jax.Array, one_CSH: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(all_CSH, one_CSH, first, axis=all_CSH.ndim - 3)

    return jax.tree.map(write, cache, filled)


@functools.partial(jax.jit, static_argnames=("model", "vocab_size"), donate_argnames="cache")
def next_tokens(
    model: GPT, params: Params, cache: Cache, step: Step, vocab_size: int
) -> tuple[Next, Cache]:
    """The next token of every row, and the cache with the last one's keys in it."""
    step = Step(*map(jnp.asarray, step))
    logits_B1V, cache = apply_cached(
        model, params, step.token_B[:, None], step.position_B[:, None], cache
    )
    allowed_V = jnp.arange(logits_B1V.shape[-1]) < vocab_size
    logits_BV = jnp.where(allowed_V, logits_B1V[:, 0].astype(jnp.float32), -jnp.inf)
    log_p_BV = log_softmax(logits_BV)
    # Rows of nothing but -inf would draw an id outside the vocabulary: the engine bans fewer.
    rows_B1 = jnp.arange(len(logits_BV))[:, None]
    logits_BV = logits_BV.at[rows_B1, step.banned_BE].set(-jnp.inf, mode="drop")
    greedy_B = likeliest(logits_BV)
    sampling_B = step.temperature_B > 0
    token_B = jax.lax.cond(
        jnp.any(sampling_B),
        lambda: _drawn(logits_BV, step, vocab_size).astype(greedy_B.dtype),
        lambda: greedy_B,
    )
    token_B = jnp.where(sampling_B, token_B, greedy_B)
    chosen_B = jnp.take_along_axis(log_p_BV, token_B[:, None], axis=1)[:, 0]
    K = min(N_LIKELIEST, vocab_size)

    def told() -> tuple[jax.Array, jax.Array]:
        likely_BK, ids_BK = jax.lax.top_k(log_p_BV, K)
        return ids_BK, likely_BK

    def untold() -> tuple[jax.Array, jax.Array]:
        shape = (len(log_p_BV), K)
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, log_p_BV.dtype)

    ids_BK, likely_BK = jax.lax.cond(step.tells, told, untold)
    return Next(token_B, chosen_B, ids_BK, likely_BK), cache


def _drawn(logits_BV: jax.Array, step: Step, vocab_size: int) -> jax.Array:
    """A token for each row under its temperature, then top_k, then top_p, [B]; of rows that sample.

    A filter that no row asks for is not computed, and never changes a row that does not ask.
    """
    sampling_B1 = (step.temperature_B > 0)[:, None]
    warm_BV = logits_BV / jnp.where(sampling_B1, step.temperature_B[:, None], 1.0)
    top_k_B1, top_p_B1 = step.top_k_B[:, None], step.top_p_B[:, None]
    top_BV = jax.lax.cond(
        jnp.any(top_k_B1 < vocab_size),
        lambda: jnp.where(top_k_B1 < vocab_size, keep_top_k(warm_BV, top_k_B1), warm_BV),
        lambda: warm_BV,
    )
    kept_BV = jax.lax.cond(
        jnp.any(top_p_B1 < 1),
        lambda: jnp.where(top_p_B1 < 1, keep_top_p(top_BV, top_p_B1), top_BV),
        lambda: top_BV,
    )

    def draw(seed: jax.Array, number: jax.Array, n: jax.Array, logits_V: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), number)
        return jax.random.categorical(jax.random.fold_in(key, n), logits_V)

    return jax.vmap(draw)(step.seed_B, step.number_B, step.drawn_B, kept_BV)
