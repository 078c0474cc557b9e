"""The compiled half of serving: rows of one key-value cache, filled and decoded.

The batch has a fixed number of rows. A request takes a free one: its prompt is computed alone and
its keys and values are written there; each step then gives every row its next token. What a row
becomes depends on its own prompt, settings and seed alone. Must not import flax.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.transformer import Cache
from gpt_jax.sampling import keep_top_p, likeliest

Array = Any
"""A numpy array, or a jax.Array."""
N_LIKELIEST = 5
"""Alternatives that a step tells of each token."""


class Step(NamedTuple):
    """What every row is told: arrays of B rows, on the host or on the device."""

    token_B: Array
    """The last token, of which the key is computed and after which the next one comes."""
    position_B: Array
    """Its place in the text."""
    temperature_B: Array
    """0 takes the likeliest token."""
    top_p_B: Array
    seed_B: Array
    """uint32."""
    number_B: Array
    """Of the choice among those of one seed."""
    drawn_B: Array
    """Tokens drawn so far: with the seed, the key of the next draw."""


class Next(NamedTuple):
    """What comes of a step, [B] or [B, N_LIKELIEST]."""

    token_B: jax.Array
    log_probability_B: jax.Array
    """Nats, of the model's own distribution: before temperature and top_p."""
    likeliest_BK: jax.Array
    log_probabilities_BK: jax.Array


@functools.partial(jax.jit, static_argnames="model", donate_argnames="cache")
def fill_row(
    model: GPT, params: Params, cache: Cache, tokens_1T: jax.Array, row: jax.Array
) -> Cache:
    """The cache with a prompt's keys and values as the row's; tokens beyond the prompt are padding
    that no query sees before it is overwritten."""
    n_slots = cache[0]["key"].shape[-2]
    positions_1T = jnp.arange(tokens_1T.shape[1])[None]
    _, filled = model.apply_cached(params, tokens_1T, positions_1T, model.init_cache(1, n_slots))
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
    logits_B1V, cache = model.apply_cached(
        params, step.token_B[:, None], step.position_B[:, None], cache
    )
    allowed_V = jnp.arange(logits_B1V.shape[-1]) < vocab_size
    logits_BV = jnp.where(allowed_V, logits_B1V[:, 0].astype(jnp.float32), -jnp.inf)
    log_p_BV = jax.nn.log_softmax(logits_BV)
    sampling_B = step.temperature_B > 0

    def drawn() -> jax.Array:
        warm_BV = logits_BV / jnp.where(sampling_B, step.temperature_B, 1.0)[:, None]
        kept_BV = keep_top_p(warm_BV, step.top_p_B[:, None])

        def draw(seed: jax.Array, number: jax.Array, n: jax.Array, logits_V: jax.Array):
            key = jax.random.fold_in(jax.random.key(seed), number)
            return jax.random.categorical(jax.random.fold_in(key, n), logits_V)

        return jax.vmap(draw)(step.seed_B, step.number_B, step.drawn_B, kept_BV)

    greedy_B = likeliest(logits_BV)
    token_B = jax.lax.cond(
        jnp.any(sampling_B), lambda: drawn().astype(greedy_B.dtype), lambda: greedy_B
    )
    token_B = jnp.where(sampling_B, token_B, greedy_B)
    chosen_B = jnp.take_along_axis(log_p_BV, token_B[:, None], axis=1)[:, 0]
    likely_BK, ids_BK = jax.lax.top_k(log_p_BV, min(N_LIKELIEST, vocab_size))
    return Next(token_B, chosen_B, ids_BK, likely_BK), cache
