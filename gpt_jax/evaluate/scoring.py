"""Log-probabilities of continuations, in batches on the mesh.

Requests are sorted by length and cut into batches of about the same number of tokens, longest
first; shapes come from a short list of lengths, so few programs are compiled. Logits are computed
at the scored positions alone. Padding is on the right, where no scored position sees it: a score
depends on its own request only (to float rounding). Must not import flax or the training loop.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gpt_jax.cost.rounding import round_up
from gpt_jax.evaluate.requests import Request, Score
from gpt_jax.inference.sampling import likeliest
from gpt_jax.models.decoding import rounded_params, unstacked_params
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives import in_parts
from gpt_jax.objectives.cross_entropy import target_scores
from gpt_jax.parallel.feed import process_rows, put_batch
from gpt_jax.parallel.sharding import Layout

BATCH_TOKENS = 8192
"""Tokens of a batch, padding included, about."""
SHORTEST = 16
"""The shortest row that a program is compiled for."""


class Window(NamedTuple):
    """A part of a request that fits the model: tokens [start, stop), scored from `first` on."""

    start: int
    first: int
    stop: int


def windows(n_tokens: int, n_given: int, seq_len: int, stride: int | None = None) -> list[Window]:
    """Windows that together score tokens [n_given, n_tokens) once each.

    A window reads at most seq_len tokens and scores the token after each: its length is at most
    seq_len + 1. The context is cut on the left. If what is scored fits one window, there is one;
    otherwise each after the first scores `stride` tokens (default seq_len / 2), so that each of
    them has at least seq_len - stride tokens of context.

    Raises ValueError for a stride outside 1 to seq_len, or nothing given.
    """
    stride = max(1, seq_len // 2) if stride is None else stride
    if not 1 <= stride <= seq_len:
        raise ValueError(
            f"stride = {stride}; allowed: 1 to the model's context of {seq_len} tokens"
        )
    if n_given < 1:
        raise ValueError("a request needs one token of context or more")
    if n_tokens - n_given <= seq_len:
        return [Window(max(0, n_tokens - seq_len - 1), n_given, n_tokens)]
    stop = max(n_given + stride, seq_len + 1)
    found = [Window(max(0, stop - seq_len - 1), n_given, stop)]
    while stop < n_tokens:
        first, stop = stop, min(stop + stride, n_tokens)
        found.append(Window(stop - seq_len - 1, first, stop))
    return found


def bucket(n: int) -> int:
    """n rounded up to one of few lengths: at most a quarter more, and SHORTEST at least."""
    return max(SHORTEST, round_up(n, per_octave=4))


class Weights(NamedTuple):
    """A model's parameters as scoring reads them: all of them for every batch."""

    params: Params
    """Kernels have the type that products round them to."""
    tables: tuple[jax.Array, ...]
    """The output embeddings, likewise: parts of the vocabulary, [v, D] each."""


def scoring_weights(model: GPT, params: Params) -> Weights:
    """The parameters of a model, rounded and cut once and not for every batch.

    Not compiled: parameters that have their type already are the same arrays, and no copies.
    """
    how = model.execution.how
    tables = [model.output_table(params).astype(how.operands)]
    if how.cpu_forms:  # wide matmuls are slow there
        tables = in_parts.split_vocabulary(tables[0])
    rounded = rounded_params(model, params)
    if how.operands != jnp.float32:
        rounded = unstacked_params(model, rounded)
    return Weights(rounded, tuple(tables))


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A model that scores requests. `banned`: ids that `Score.allowed` passes over at first."""

    model: GPT
    weights: Weights
    layout: Layout
    banned: tuple[int, ...] = ()
    batch_tokens: int = BATCH_TOKENS

    def score(
        self, requests: Sequence[Request], stride: int | None = None
    ) -> Iterator[list[tuple[int, Score]]]:
        """(index, score) of the requests that each batch completes, in no order.

        stride: see `windows`; of requests that are longer than the model's context.
        Raises ValueError for ids that the model does not know.
        """
        seq_len = self.model.config.seq_len
        parts: list[tuple[int, Window]] = []
        missing = [0] * len(requests)
        for index, request in enumerate(requests):
            self._check(request)
            n_given = len(request.context)
            cut = windows(n_given + len(request.continuation), n_given, seq_len, stride)
            missing[index] = len(cut)
            parts += [(index, window) for window in cut]
        parts.sort(key=lambda part: part[1].start - part[1].stop)
        sums = [[0.0, True, True] for _ in requests]
        banned_V = self._banned()
        waiting = None  # the devices compute a batch while the host reads the one before
        for batch in [*self._batches(parts), None]:
            done: list[tuple[int, Score]] = []
            if waiting is not None:
                for (index, window), *score in self._read(*waiting):
                    total = sums[index]
                    total[0] += score[0]
                    total[1] = total[1] and score[1]
                    # What is banned is banned at the beginning of a continuation alone.
                    is_first = window.first == len(requests[index].context)
                    total[2] = total[2] and score[2 if is_first else 1]
                    missing[index] -= 1
                    if not missing[index]:
                        n_tokens = len(requests[index].continuation)
                        log_probability, greedy, allowed = total
                        done.append(
                            (index, Score(log_probability, bool(greedy), bool(allowed), n_tokens))
                        )
            waiting = None if batch is None else self._dispatch(requests, batch, banned_V)
            if done:
                yield done

    def score_all(self, requests: Sequence[Request]) -> list[Score]:
        """The scores, in the order of the requests."""
        scores = dict(pair for done in self.score(requests) for pair in done)
        return [scores[index] for index in range(len(requests))]

    def _check(self, request: Request) -> None:
        if not request.continuation:
            raise ValueError("a continuation has no tokens: there is nothing to score")
        ids = (*request.context, *request.continuation)
        known = self.model.config.vocab_size
        if min(ids) < 0 or max(ids) >= known:
            raise ValueError(
                f"a text has token id {max(ids)}; the model knows 0 to {known - 1}: was it "
                "trained with another tokenizer?"
            )

    def _batches(self, parts: list[tuple[int, Window]]) -> Iterator[list[tuple[int, Window]]]:
        """Consecutive parts, as many as a batch of the longest one's bucket has rows."""
        position = 0
        while position < len(parts):
            _, longest = parts[position]
            n_rows = self._shape(longest.stop - longest.start - 1)[0]
            yield parts[position : position + n_rows]
            position += n_rows

    def _shape(self, length: int) -> tuple[int, int]:
        """Rows and length of the batch whose longest row reads so many tokens."""
        width = min(bucket(length), self.model.config.seq_len)
        n_parts = self.layout.batch_parts
        return max(1, self.batch_tokens // width // n_parts) * n_parts, width

    def _dispatch(
        self, requests: Sequence[Request], batch: list[tuple[int, Window]], banned_V: jax.Array
    ) -> Any:
        """Hand a batch to the devices."""
        _, longest = batch[0]
        n_rows, width = self._shape(longest.stop - longest.start - 1)
        most = max(window.stop - window.first for _, window in batch)
        n_scored = min(width, _power_of_four(most))
        tokens_BT = np.zeros((n_rows, width), np.int32)
        targets_BC, positions_BC = np.zeros((2, n_rows, n_scored), np.int32)
        weights_BC = np.zeros((n_rows, n_scored), bool)
        for row, (index, window) in enumerate(batch):
            request = requests[index]
            ids = (*request.context, *request.continuation)[window.start : window.stop]
            n = window.stop - window.first
            tokens_BT[row, : len(ids) - 1] = ids[:-1]
            targets_BC[row, :n] = ids[-n:]
            positions_BC[row, :n] = np.arange(len(ids) - 1 - n, len(ids) - 1)
            weights_BC[row, :n] = True
        placed = _put((tokens_BT, targets_BC, positions_BC, weights_BC), self.layout)
        return batch, _score_batch(self.model, self.weights, *placed, banned_V)

    def _banned(self) -> jax.Array:
        banned_V = np.zeros(self.model.config.vocab_size, bool)
        banned_V[list(self.banned)] = True
        return jax.device_put(banned_V, self.layout.everywhere)

    def _read(self, batch: list[tuple[int, Window]], scored: Any) -> Iterator[tuple[Any, ...]]:
        """(part, log-probability, greedy, allowed) of each row."""
        sums, greedy, allowed = (np.asarray(x) for x in jax.device_get(scored))
        for row, part in enumerate(batch):
            yield part, float(sums[row]), bool(greedy[row]), bool(allowed[row])


def _power_of_four(n: int) -> int:
    """The next power of four, from 4 on."""
    return 4 ** max(1, -(-(n - 1).bit_length() // 2))


def _put(arrays: tuple[NDArray[Any], ...], layout: Layout) -> list[jax.Array]:
    """Arrays that every process has whole, split by rows over the mesh."""
    rows = layout.sharding(("act_batch", None))
    return [put_batch(x[process_rows(len(x), rows)], rows, len(x)) for x in arrays]


@functools.partial(jax.jit, static_argnames="model")
def _score_batch(
    model: GPT,
    weights: Weights,
    tokens_BT: jax.Array,
    targets_BC: jax.Array,
    positions_BC: jax.Array,
    weights_BC: jax.Array,
    banned_V: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """For each row, over its scored positions: log-probability, greedy, allowed."""
    x_BTD = model.apply(weights.params, tokens_BT, logits=False)
    x_BCD = jnp.take_along_axis(x_BTD, positions_BC[..., None], axis=1)
    n_batch, n_scored, width = x_BCD.shape
    n_tokens = n_batch * n_scored
    n_parts = in_parts.cpu_token_parts(n_tokens, model.config.vocab_size)
    tokens = x_BCD.reshape(n_tokens, width), targets_BC.reshape(n_tokens)

    def of_part(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        x_RD, targets_R = part
        return _token_scores(model, weights.tables, x_RD, targets_R, banned_V)

    scored = jax.lax.map(of_part, tuple(in_parts.split_tokens(x, n_parts) for x in tokens))
    log_BC, best_BC, best_allowed_BC = (
        in_parts.join_tokens(x, n_tokens).reshape(n_batch, n_scored) for x in scored
    )
    hit_BC, hit_allowed_BC = best_BC == targets_BC, best_allowed_BC == targets_BC
    counted_BC = weights_BC.astype(bool)
    first_allowed_BC = hit_BC.at[:, 0].set(hit_allowed_BC[:, 0])
    return (
        jnp.sum(jnp.where(counted_BC, log_BC, 0.0), axis=1),
        jnp.all(hit_BC | ~counted_BC, axis=1),
        jnp.all(first_allowed_BC | ~counted_BC, axis=1),
    )


def _token_scores(
    model: GPT,
    tables: tuple[jax.Array, ...],
    x_MD: jax.Array,
    targets_M: jax.Array,
    banned_V: jax.Array,
) -> tuple[jax.Array, ...]:
    """Log-probability of the target, likeliest id, likeliest id that is not banned, [M] each."""
    logits = in_parts.logit_parts(x_MD, tables, model.config.logit_soft_cap)
    target_M, normaliser_M = target_scores(logits, targets_M)
    lowest = jnp.full(x_MD.shape[0], -jnp.inf), jnp.zeros(x_MD.shape[0], jnp.int32)
    best, allowed, begin = lowest, lowest, 0
    for part_MV in logits:
        n = part_MV.shape[1]
        best = _better(best, part_MV, begin)
        banned = jnp.where(banned_V[begin : begin + n], -jnp.inf, part_MV)
        allowed = _better(allowed, banned, begin)
        begin += n
    return target_M - normaliser_M, best[1], allowed[1]


def _better(
    old: tuple[jax.Array, jax.Array], scores_MV: jax.Array, begin: int
) -> tuple[jax.Array, jax.Array]:
    """The highest score so far with its id; of equals the first."""
    column_M, score_M = likeliest(scores_MV), jnp.max(scores_MV, axis=1)
    higher = score_M > old[0]
    return jnp.where(higher, score_M, old[0]), jnp.where(higher, begin + column_M, old[1])
