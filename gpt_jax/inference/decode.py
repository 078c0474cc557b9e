"""Token ids from a trained model: a key-value cache and a compiled decoding loop.

What a row becomes depends on the seed and its own prompt alone: not on its neighbours in the
batch, on padding, or on whether somebody looks on. Must not import flax or the training loop.
"""

import collections
import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gpt_jax.cost.rounding import round_up
from gpt_jax.inference.sampling import choose_tokens
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.models import decoding
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.transformer import Cache

STEPS_A_DISPATCH = 8
"""Tokens that are decoded between two looks from the host, when somebody looks."""

OnToken = Callable[[int, int | None], bool]
"""Called with (row, token) for each new token in order: True ends the row there. Called with
(row, None) exactly once a row, when nothing more will come."""


Array = Any
"""A jax.Array or a numpy array: rows move between device and host."""


class Rows(NamedTuple):
    """A batch of texts on their way."""

    tokens_BT: Array
    """Prompt (at most the last seq_len tokens of it) and continuation, padded on the right."""
    length_B: Array
    """Tokens so far."""
    limit_B: Array
    """Tokens at which the row is done."""
    start_B: Array
    """Index of the token whose key is in slot 0 of the cache."""
    done_B: Array
    seen_BV: Array
    """Whether a token occurs in prompt or continuation."""
    cache: Cache

    @property
    def full_B(self) -> Any:
        """Rows whose next key has no slot."""
        return self.length_B - self.start_B > self.cache[0]["key"].shape[-2]


def generate_tokens(
    model: GPT,
    params: Params,
    prompts: Sequence[NDArray[Any]],
    sampling: SamplingConfig,
    end_of_text: int | Sequence[int] | None = None,
    on_token: OnToken | None = None,
    vocab_size: int | None = None,
    prefix_BPD: jax.Array | None = None,
) -> list[NDArray[np.int32]]:
    """Continuations of a batch of prompts of any lengths, without the prompts.

    Text may grow longer than the model's context of seq_len tokens. Of a longer prompt the last
    seq_len tokens are read; when the context is full, it starts again with its last seq_len / 2
    tokens as if these were the beginning of the text, whatever kind of positions the model has.

    Shapes are rounded up to powers of two (the cache: or three quarters of one), so that calls of
    similar size share a compiled program. Equal prompts of a batch are drawn independently.

    Args:
      params: as trained, or the `decoding_params` of them, which saves time in further calls.
      prompts: 1-D arrays of one token id or more.
      end_of_text: an id, or several, that end a row and are not part of what is returned; None:
        nothing does.
      on_token: see OnToken. Without it everything is decoded in one dispatch.
      vocab_size: ids from here on are never drawn; by default, and at most, the model's.
      prefix_BPD: embeddings in the place of each prompt's first P tokens; gone when the context is
        full and starts again.

    Raises ValueError for an empty prompt or an id outside the model's vocabulary.
    """
    if not prompts:
        return []
    known = model.config.vocab_size
    texts = [_checked(prompt, known) for prompt in prompts]
    rows = _start(model, texts, sampling.max_new_tokens)
    params = decoding_params(model, params)
    n_steps = STEPS_A_DISPATCH if on_token else sampling.max_new_tokens
    drawn_below = known if vocab_size is None else min(vocab_size, known)
    keys_B = _row_keys(*_row_identities(texts, len(rows.done_B)), np.uint32(sampling.seed))
    decode = functools.partial(
        _decode,
        model,
        params,
        keys_B=keys_B,
        n_steps=n_steps,
        sampling=_without_length(sampling),
        vocab_size=drawn_below,
        ends_E=_ends(end_of_text),
    )
    return _until_done(model, params, rows, decode, len(texts), on_token, prefix_BPD)


def _until_done(
    model: GPT,
    params: Params,
    rows: Rows,
    decode: Callable[..., Rows],
    n_texts: int,
    on_token: OnToken | None,
    prefix_BPD: jax.Array | None,
) -> list[NDArray[np.int32]]:
    """The continuation of each row, prefilling where it begins and where its context is full."""
    n_slots = rows.cache[0]["key"].shape[-2]
    begin_B = np.array(rows.length_B)
    # Decoding reads a row's last token itself: prompts of one token need no prefill.
    fill_B, width = begin_B > 1, min(round_up(int(begin_B.max())), n_slots)
    outputs: list[list[int]] = [[] for _ in range(n_texts)]
    prefix_BPD = _for_rows(prefix_BPD, len(rows.done_B))
    while True:
        if fill_B.any():
            rows = _prefill(model, params, rows, fill_B, width, prefix_BPD)
            prefix_BPD = None
        was_done_B = np.array(rows.done_B)
        rows = decode(rows=rows)
        rows = _deliver(rows, outputs, begin_B, was_done_B, on_token)
        if rows.done_B.all():
            return [np.array(output, np.int32) for output in outputs]
        fill_B, width = np.array(~rows.done_B & rows.full_B), max(1, n_slots // 2)
        rows = rows._replace(start_B=np.where(fill_B, rows.length_B - width, rows.start_B))


def _without_length(sampling: SamplingConfig) -> SamplingConfig:
    """Seed and length are data: they must not make another compiled program."""
    return dataclasses.replace(sampling, seed=0, max_new_tokens=1)


def _for_rows(prefix_BPD: jax.Array | None, n_rows: int) -> jax.Array | None:
    """Prefixes for all rows of a program: zeros for those that it has too many."""
    if prefix_BPD is None:
        return None
    return jnp.pad(prefix_BPD, ((0, n_rows - len(prefix_BPD)), (0, 0), (0, 0)))


def _ends(end_of_text: int | Sequence[int] | None) -> NDArray[np.int32]:
    """[E] ids, one or more; -1 is none."""
    ids = () if end_of_text is None else np.atleast_1d(end_of_text)
    return np.array(ids if len(ids) else [-1], np.int32)


def decoding_params(model: GPT, params: Params) -> Params:
    """Parameters in the form that decoding reads; the same object if they are in it."""
    made = jax.eval_shape(functools.partial(decoding.decoding_params, model), params)
    types = [(x.shape, x.dtype) for x in jax.tree.leaves(params)]
    if types == [(x.shape, x.dtype) for x in jax.tree.leaves(made)]:
        return params
    return _decoding_params(model, params)


@functools.partial(jax.jit, static_argnames="model")
def _decoding_params(model: GPT, params: Params) -> Params:
    return decoding.decoding_params(model, params)


def _checked(prompt: NDArray[Any], vocab_size: int) -> NDArray[np.int32]:
    ids = np.asarray(prompt).astype(np.int64).reshape(-1)
    if not ids.size:
        raise ValueError("a prompt has no tokens; begin with the end-of-text token, for example")
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if outside.size:
        raise ValueError(
            f"a prompt has token id {outside[0]}; the model knows 0 to {vocab_size - 1}: was it "
            "trained with another tokenizer?"
        )
    return ids.astype("<i4")


def _start(model: GPT, texts: list[NDArray[np.int32]], max_new_tokens: int) -> Rows:
    """The batch before its first step, padded with rows that are done."""
    seq_len = model.config.seq_len
    parts = 1 if model.layout is None else model.layout.batch_parts
    n_batch = -(-round_up(len(texts)) // parts) * parts
    read = [text[-seq_len:] for text in texts]
    capacity = round_up(max(map(len, read)) + max_new_tokens, per_octave=2)
    tokens_BT = np.zeros((n_batch, capacity), np.int32)
    seen_BV = np.zeros((n_batch, model.config.padded_vocab_size), bool)
    length_B = np.ones(n_batch, np.int32)
    for row, (text, context) in enumerate(zip(texts, read, strict=True)):
        tokens_BT[row, : len(context)] = context
        seen_BV[row, text] = True
        length_B[row] = len(context)
    return Rows(
        tokens_BT=tokens_BT,
        length_B=length_B,
        limit_B=length_B + max_new_tokens,
        start_B=np.zeros(n_batch, np.int32),
        done_B=np.arange(n_batch) >= len(texts),
        seen_BV=seen_BV,
        cache=decoding.init_cache(model, n_batch, min(capacity, seq_len)),
    )


def _row_identities(
    texts: list[NDArray[np.int32]], n_batch: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """For each row a hash of its prompt, and how many equal prompts come before it."""
    hash_B, earlier_B = np.zeros((2, n_batch), np.uint32)
    count: collections.Counter[bytes] = collections.Counter()
    for row, text in enumerate(texts):
        content = text.tobytes()
        hash_B[row], earlier_B[row] = zlib.crc32(content), count[content]
        count[content] += 1
    return hash_B, earlier_B


@jax.jit
def _row_keys(hash_B: Array, earlier_B: Array, seed: np.uint32) -> jax.Array:
    """A random key for each row that its neighbours do not change."""

    def row_key(prompt_hash: jax.Array, n_earlier: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), prompt_hash), n_earlier)

    return jax.vmap(row_key)(hash_B, earlier_B)


@functools.partial(jax.jit, static_argnames=("model", "width"), donate_argnames="rows")
def _prefill(
    model: GPT,
    params: Params,
    rows: Rows,
    fill_B: Array,
    width: int,
    prefix_BPD: jax.Array | None,
) -> Rows:
    """The cache of `fill_B` rows made anew, from the `width` tokens that begin at start_B.

    Slots beyond a row's length hold keys of padding: no query sees a later position, and each is
    overwritten before its turn.
    """
    window = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=width)
    tokens_BT = jax.vmap(window)(jnp.asarray(rows.tokens_BT), rows.start_B)
    positions_BT = jnp.broadcast_to(jnp.arange(width), tokens_BT.shape)
    _, filled = decoding.apply_cached(
        model, params, tokens_BT, positions_BT, rows.cache, prefix_BPD
    )
    chosen_CSH = jnp.repeat(fill_B, model.config.kv_heads)[:, None, None]
    cache = jax.tree.map(lambda new, old: jnp.where(chosen_CSH, new, old), filled, rows.cache)
    return rows._replace(cache=cache)


@functools.partial(
    jax.jit,
    static_argnames=("model", "sampling"),
    donate_argnames="rows",
)
def _decode(
    model: GPT,
    params: Params,
    rows: Rows,
    keys_B: jax.Array,
    n_steps: int,
    sampling: SamplingConfig,
    vocab_size: int,
    ends_E: Array,
) -> Rows:
    """Up to n_steps tokens for each row; earlier if all are done, or one that is not is full.

    A step computes the key of each row's last token, and from its logits the next token.
    """
    index_B = jnp.arange(rows.tokens_BT.shape[0])

    def goes_on(carry: tuple[jax.Array, Rows]) -> jax.Array:
        step, rows = carry
        return (step < n_steps) & ~jnp.all(rows.done_B) & ~jnp.any(~rows.done_B & rows.full_B)

    def one_step(carry: tuple[jax.Array, Rows]) -> tuple[jax.Array, Rows]:
        step, rows = carry
        last_B = rows.length_B - 1
        tokens_B1 = rows.tokens_BT[index_B, last_B][:, None]
        positions_B1 = (last_B - rows.start_B)[:, None]
        logits_B1V, cache = decoding.apply_cached(
            model, params, tokens_B1, positions_B1, rows.cache
        )
        allowed_V = jnp.arange(logits_B1V.shape[-1]) < vocab_size
        logits_BV = jnp.where(allowed_V, logits_B1V[:, 0], -jnp.inf)
        step_keys_B = jax.vmap(jax.random.fold_in)(keys_B, rows.length_B)
        token_B = choose_tokens(logits_BV, rows.seen_BV, step_keys_B, sampling)
        done_B = rows.done_B | jnp.any(token_B[:, None] == ends_E, axis=1)
        # A row that is done keeps its length, so that what is written there stays unread.
        length_B = rows.length_B + ~done_B
        return step + 1, rows._replace(
            tokens_BT=rows.tokens_BT.at[index_B, rows.length_B].set(token_B, mode="drop"),
            length_B=length_B,
            done_B=done_B | (length_B == rows.limit_B),
            seen_BV=rows.seen_BV.at[index_B, token_B].set(True),
            cache=cache,
        )

    _, rows = jax.lax.while_loop(goes_on, one_step, (jnp.zeros((), jnp.int32), rows))
    return rows


def _deliver(
    rows: Rows,
    outputs: list[list[int]],
    begin_B: NDArray[np.int32],
    was_done_B: NDArray[np.bool_],
    on_token: OnToken | None,
) -> Rows:
    """Append the new tokens to the outputs, ending the rows that on_token ends.

    begin_B: lengths of the prompts. Returns the rows with all but cache and `seen` on the host.
    """
    tokens_BT, length_B, limit_B, start_B, done_B = map(np.array, rows[:5])
    for row, output in enumerate(outputs):
        for token in tokens_BT[row, begin_B[row] + len(output) : length_B[row]].tolist():
            output.append(token)
            if on_token and on_token(row, token):
                done_B[row], length_B[row] = True, begin_B[row] + len(output)
                break
        if on_token and done_B[row] and not was_done_B[row]:
            on_token(row, None)
    return Rows(tokens_BT, length_B, limit_B, start_B, done_B, rows.seen_BV, rows.cache)
