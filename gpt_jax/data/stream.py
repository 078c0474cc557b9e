"""Training samples as a pure function of (seed, global sample index), and evaluation in order.

Sample i is the same whatever the batch size, the number of hosts, or what was read before: a
run resumes from its step number alone. Nothing is precomputed: the global shuffle is a keyed
permutation (`gpt_jax.data.permutation`), tokens are sliced out of memory maps. Must not import
jax.

`tools/benchmark_data.py` measures it beside Grain: it outruns training by far more than is
needed, so nothing is prefetched.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gpt_jax.data.batch import Batch
from gpt_jax.data.permutation import U64, Keys, fold, permute
from gpt_jax.data.shards import TokenShards

BLOCK = 10_000
"""Samples in which a mixture's proportions are met exactly (weights have four decimals), and
which are located together, in a few milliseconds, and remembered."""


class SampleLocation(NamedTuple):
    """Where a sample came from, for diagnostics."""

    sample: int
    corpus: str
    epoch: int
    first_token: int


class Samples(Protocol):
    """An endless, seekable stream of samples, of a corpus or of a task's examples."""

    def batch(
        self, first_sample: int, batch_sequences: int, rows: slice | np.ndarray | None = None
    ) -> Batch: ...

    def sample_locations(self, first_sample: int, n: int) -> list[SampleLocation]: ...


class Stream:
    """An endless, seekable, globally shuffled stream of samples from weighted token shards.

    A sample is a window of seq_len + 1 tokens: inputs and the targets one further. An epoch cuts
    a corpus into windows that advance by seq_len, in an order and from an offset of its own, so
    that epochs see different cuts. What fits no whole window (under 2 seq_len tokens an epoch)
    falls to either end at random. Of a corpus limited to some unique tokens, every epoch shuffles
    the same windows: the first of those that epoch 0 would read, so that a larger limit adds to a
    smaller one.
    """

    def __init__(
        self,
        components: Sequence[tuple[TokenShards, float]],
        seq_len: int,
        seed: int,
        separate_documents: bool = False,
        unique_tokens: int | None = None,
    ):
        """Components are (shards, weight); only the ratio of weights matters.

        unique_tokens: of each component, to be repeated; none = all of them.
        Raises ValueError for a split shorter than one sample, a weight under the resolution, or a
        limit under one sample.
        """
        self.components = tuple(shards for shards, _ in components)
        self.seq_len, self.separate_documents = seq_len, separate_documents
        self._counts = _apportion([weight for _, weight in components], self.components)
        self._n_windows = [_n_windows(shards, seq_len) for shards in self.components]
        limit = math.inf if unique_tokens is None else unique_tokens // seq_len
        if not limit:
            raise ValueError(
                f"data.unique_tokens = {unique_tokens}; at least model.seq_len = {seq_len}"
            )
        self._n_kept = [int(min(n_windows, limit)) for n_windows in self._n_windows]
        root, self._mixture_key = _keys(seed)
        self._component_keys = fold(root, np.arange(1, len(components) + 1, dtype=U64))
        self._locate_block = functools.lru_cache(maxsize=8)(self._compute_block)

    def batch(
        self, first_sample: int, batch_sequences: int, rows: slice | np.ndarray | None = None
    ) -> Batch:
        """Samples [first_sample, first_sample + batch_sequences), or those `rows` of them."""
        located = self._locate(range(first_sample, first_sample + batch_sequences))
        component, _, start = (x if rows is None else x[rows] for x in located)
        places = zip(component.tolist(), start.tolist(), strict=True)
        windows = [(self.components[c], s) for c, s in places]
        return _make_batch(windows, self.seq_len, len(windows), self.separate_documents)

    @property
    def unique_tokens(self) -> int:
        """Number of training tokens in one epoch of every component."""
        return sum(self._n_kept) * self.seq_len

    @property
    def shares(self) -> list[tuple[int, int]]:
        """(samples among any BLOCK of the mixture, samples of an epoch) of each component."""
        return list(zip(self._counts.tolist(), self._n_kept, strict=True))

    def sample_locations(self, first_sample: int, n: int) -> list[SampleLocation]:
        """Corpus, epoch and first token of samples [first_sample, first_sample + n)."""
        samples = range(first_sample, first_sample + n)
        component, epoch, start = self._locate(samples)
        names = [self.components[c].name for c in component.tolist()]
        columns = (samples, names, epoch.tolist(), start.tolist())
        return [SampleLocation(*row) for row in zip(*columns, strict=True)]

    def _locate(self, samples: range) -> tuple[Keys, Keys, Keys]:
        """(component, epoch, first token) of each sample."""
        first, last = samples.start // BLOCK, -(-samples.stop // BLOCK)
        blocks = [self._locate_block(block) for block in range(first, max(last, first + 1))]
        within = slice(samples.start - first * BLOCK, samples.stop - first * BLOCK, samples.step)
        component, epoch, start = np.concatenate(blocks, axis=1)[:, within]
        return component, epoch, start

    def _compute_block(self, block: int) -> Keys:
        """(3, BLOCK): component, epoch and first token of the samples of a block.

        A block is a shuffled deck that holds every component's exact share; within it, as over
        all of the stream, each component is read in its own order.
        """
        located = np.empty((3, BLOCK), U64)
        located[0] = _deck(self._mixture_key, self._counts, block)
        for component, count in enumerate(self._counts.tolist()):
            mine = located[0] == component
            index = np.arange(block * count, (block + 1) * count, dtype=U64)
            located[1, mine], located[2, mine] = self._window(component, index)
        return located

    def _window(self, component: int, index: Keys) -> tuple[Keys, Keys]:
        """(epoch, first token) of the index-th sample of one component."""
        n_windows, n_kept = self._n_windows[component], self._n_kept[component]
        epoch, position = np.divmod(index, U64(n_kept))
        keys = fold(self._component_keys[component : component + 1], epoch)
        if n_kept < n_windows:
            position = permute(position, n_kept, keys)
            keys = fold(self._component_keys[component : component + 1], np.zeros_like(epoch))
        slack = self.components[component].n_tokens - 1 - n_windows * self.seq_len
        offset = fold(keys, np.zeros(1, U64)) % U64(slack + 1)
        return epoch, offset + permute(position, n_windows, keys) * U64(self.seq_len)


def unique_samples(shares: Sequence[tuple[int, int]], seed: int, n_samples: int) -> int:
    """Distinct samples among the first n_samples of a stream; shares: `Stream.shares`."""
    counts = np.array([count for count, _ in shares], U64)
    deck = _deck(_keys(seed)[1], counts, n_samples // BLOCK)
    drawn = np.bincount(deck[: n_samples % BLOCK].astype(int), minlength=len(shares))
    drawn += n_samples // BLOCK * counts.astype(int)
    return sum(min(n, of_epoch) for n, (_, of_epoch) in zip(drawn.tolist(), shares, strict=True))


def _keys(seed: int) -> tuple[Keys, Keys]:
    """The key from which those of components follow, and that of their mixture."""
    root = fold(np.full(1, seed % 2**64, U64), np.zeros(1, U64))
    return root, fold(root, np.zeros(1, U64))


def _deck(mixture_key: Keys, counts: Keys, block: int) -> Keys:
    """(BLOCK,) the component of each sample of a block."""
    keys = fold(mixture_key, np.full(BLOCK, block, U64))
    card = permute(np.arange(BLOCK, dtype=U64), BLOCK, keys)
    return np.searchsorted(np.cumsum(counts), card, "right").astype(U64)


def evaluation_batches(
    shards: TokenShards,
    seq_len: int,
    batch_sequences: int,
    max_sequences: int | None = None,
    rows: slice | np.ndarray | None = None,
    separate_documents: bool = False,
) -> Iterator[Batch]:
    """A split in order, in floor((n_tokens - 1) / seq_len) blocks that do not overlap.

    Every batch has batch_sequences rows (or the `rows` of them); rows past the end have weight 0.
    max_sequences takes so many blocks, evenly spaced: a fair sample of the split's documents.
    Raises ValueError for a split shorter than one block.
    """
    _check_length(shards, seq_len)
    n_all = n_blocks = (shards.n_tokens - 1) // seq_len
    if max_sequences is not None:
        n_blocks = min(n_blocks, max_sequences)
    for first in range(0, n_blocks, batch_sequences):
        blocks = np.arange(first, first + batch_sequences)
        blocks = (blocks if rows is None else blocks[rows]).tolist()
        chosen = [block * n_all // n_blocks for block in blocks if block < n_blocks]
        windows = [(shards, block * seq_len) for block in chosen]
        yield _make_batch(windows, seq_len, len(blocks), separate_documents)


def _make_batch(
    windows: Sequence[tuple[TokenShards, int]], seq_len: int, n_rows: int, separate: bool
) -> Batch:
    """The windows as the first rows of a batch; rows beyond them are padding."""
    tokens = np.zeros((n_rows, seq_len + 1), np.int32)
    weights = np.zeros((n_rows, seq_len), np.float32)
    weights[: len(windows)] = 1
    for row, (shards, start) in enumerate(windows):
        tokens[row] = shards.read(start, seq_len + 1)
    segments = None
    if separate:
        segments = np.zeros((n_rows, seq_len), np.int32)
        for row, (shards, start) in enumerate(windows):
            documents = shards.segments(start, seq_len + 1)
            segments[row] = documents[:-1]
            if shards.end_of_text is None:
                weights[row] = documents[:-1] == documents[1:]
    return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), weights, segments)


def _n_windows(shards: TokenShards, seq_len: int) -> int:
    """Windows an epoch: at least seq_len - 1 tokens are left over for the offset, if it can be."""
    _check_length(shards, seq_len)
    return max(1, (shards.n_tokens - seq_len) // seq_len)


def _check_length(shards: TokenShards, seq_len: int) -> None:
    if shards.n_tokens < seq_len + 1:
        raise ValueError(
            f"{shards.name} has {shards.n_tokens:,} tokens; one sample needs model.seq_len + 1 = "
            f"{seq_len + 1:,}: use more text, a shorter model.seq_len, or (for validation) a "
            "larger data.validation_fraction"
        )


def _apportion(weights: Sequence[float], components: Sequence[TokenShards]) -> Keys:
    """Samples of each component in a mixture block: largest remainders (Hamilton's method)."""
    shares = np.asarray(weights, float) / sum(weights) * BLOCK
    counts = np.floor(shares).astype(U64)
    missing = BLOCK - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += U64(1)
    for shards, weight, count in zip(components, weights, counts, strict=True):
        if not count:
            raise ValueError(
                f"weight {weight} of {shards.name} is under 1/{BLOCK} of the mixture; "
                "raise it or leave the component out (data.mixture)"
            )
    return counts
