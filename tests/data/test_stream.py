import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.config import DataConfig
from gpt_jax.data import Stream, TokenShards, evaluation_batches
from gpt_jax.data.build import build
from gpt_jax.data.shards import ShardRecord
from gpt_jax.data.stream import BLOCK, unique_samples


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """numbered(n): shards whose token at position i is i, in files of uneven lengths."""

    def make(n: int, split: str = "train") -> TokenShards:
        directory = tmp_path_factory.mktemp("numbered")
        return write_shards(directory, np.arange(n, dtype="<u4"), split, [n // 3, n // 2])

    return make


def write_shards(directory: Path, tokens, split: str, cuts=(), end_of_text=None) -> TokenShards:
    records = []
    for i, part in enumerate(np.split(tokens, cuts)):
        record = ShardRecord(f"{split}-{i:05d}", 0, len(part), 0, "", "")
        for file, content in zip(record.files(), (part.tobytes(), b""), strict=True):
            (directory / file).write_bytes(content)
        records.append(record)
    return TokenShards(directory, split, tuple(records), tokens.dtype, end_of_text)


@pytest.mark.smoke
@settings(deadline=None, max_examples=40)
@given(n=st.integers(9, 2000), seq_len=st.integers(1, 8), seed=st.integers(0, 2**70))
def test_every_window_exactly_once_per_epoch(numbered, n, seq_len, seed):
    stream = Stream([(numbered(n), 1.0)], seq_len, seed)
    places = stream.sample_locations(0, 3 * n)
    epochs: dict[int, list[int]] = {}
    for place in places:
        epochs.setdefault(place.epoch, []).append(place.first_token)
    assert list(epochs) == sorted(epochs)
    windows = len(epochs[0])
    assert n - windows * seq_len < 2 * seq_len + 1, "under two windows are left over"
    for starts in list(epochs.values())[:-1]:
        first = min(starts)
        assert sorted(starts) == [first + i * seq_len for i in range(windows)]
        assert first + windows * seq_len < n, "the last target is inside"


@settings(deadline=None, max_examples=40)
@given(
    first=st.integers(0, 5000),
    batch=st.integers(1, 40),
    other=st.integers(1, 40),
    hosts=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 5),
)
def test_sample_depends_on_its_index_alone(numbered, first, batch, other, hosts, seed):
    components = [(numbered(500), 2.0), (numbered(90), 1.0)]
    whole = Stream(components, 7, seed).batch(first, batch * hosts)
    stream = Stream(components, 7, seed)
    stream.batch(first + 3, other)
    parts = [
        stream.batch(first, batch * hosts, slice(h * batch, (h + 1) * batch)) for h in range(hosts)
    ]
    assert np.array_equal(np.concatenate([p.tokens_BT for p in parts]), whole.tokens_BT)
    one_by_one = [stream.batch(first + i, 1) for i in range(batch * hosts)]
    assert np.array_equal(np.concatenate([b.targets_BT for b in one_by_one]), whole.targets_BT)
    assert np.array_equal(whole.tokens_BT[:, 1:], whole.targets_BT[:, :-1])
    assert [b.first_token for b in stream.sample_locations(first, batch)] == list(
        whole.tokens_BT[:batch, 0]
    )


def test_order_is_a_contract():
    """A run resumes in the middle of this order: a change here is a change of every experiment."""
    shards = object.__new__(TokenShards)
    shards.n_tokens, shards.name = 10_000, "fixed/train"
    stream = Stream([(shards, 3.0), (shards, 1.0)], 64, seed=7)
    places = [(p.epoch, p.first_token) for p in stream.sample_locations(1000, 6)]
    assert places == [(1, 8330), (4, 6346), (4, 9098), (5, 5657), (1, 6666), (5, 5145)]


def test_a_limit_repeats_windows_from_all_over_and_a_larger_one_adds_to_them(numbered):
    shards, seq_len = numbered(20_000), 32
    kept = {}
    for limit in (None, 64, 320, 1_000, 10**9):
        stream = Stream([(shards, 1.0)], seq_len, 3, unique_tokens=limit)
        n = stream.unique_tokens // seq_len
        assert n == ((20_000 - 32) // 32 if limit in (None, 10**9) else limit // seq_len)
        epochs = [
            [p.first_token for p in stream.sample_locations(epoch * n, n)] for epoch in range(3)
        ]
        if limit not in (None, 10**9):
            assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
            assert n < 5 or epochs[0] != epochs[1]
        kept[limit] = set(epochs[0])
    assert kept[64] < kept[320] < kept[1_000] < kept[None] == kept[10**9]
    assert max(kept[320]) - min(kept[320]) > 10_000
    with pytest.raises(ValueError, match=r"data.unique_tokens = 31; at least model.seq_len = 32"):
        Stream([(shards, 1.0)], seq_len, 3, unique_tokens=31)


def test_seeds_and_epochs_differ_in_order_and_cut(numbered):
    shards = numbered(20_000)
    orders, offsets = set(), set()
    for seed in range(3):
        stream = Stream([(shards, 1.0)], 32, seed)
        n = (20_000 - 32) // 32
        for epoch in range(3):
            starts = [p.first_token for p in stream.sample_locations(epoch * n, n)]
            orders.add(tuple(s // 32 for s in starts))
            offsets.add(min(starts))
    assert len(orders) == 9
    assert len(offsets) >= 7


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1, 2, 5)])
def test_mixture_proportions(numbered, weights):
    components = [(numbered(1000 * (i + 1)), w) for i, w in enumerate(weights)]
    stream = Stream(components, 8, seed=1)
    names = [c[0].name for c in components]
    wanted = np.array(weights) / sum(weights)

    def shares(first: int, n: int) -> np.ndarray:
        found = [p.corpus for p in stream.sample_locations(first, n)]
        return np.array([found.count(name) for name in names]) / n

    assert np.allclose(shares(BLOCK, BLOCK), wanted, atol=1 / BLOCK)
    for first in (0, 1234, 98_765):
        assert np.allclose(shares(first, 1000), wanted, atol=5 * (0.25 / 1000) ** 0.5)


def test_mixture_component_keeps_its_own_order(numbered):
    """Each component is read as if it were alone: every window once an epoch."""
    shards = numbered(1000)
    stream = Stream([(shards, 1.0), (numbered(1000), 1.0)], 8, seed=1)
    mine = [p for p in stream.sample_locations(0, 3000) if p.corpus == shards.name]
    n_windows = (1000 - 8) // 8
    assert len(mine) > 5 * n_windows
    assert [p.epoch for p in mine] == [i // n_windows for i in range(len(mine))]
    for epoch in range(5):
        assert len({p.first_token for p in mine if p.epoch == epoch}) == n_windows


@pytest.mark.parametrize("n_samples", [0, 1, 800, BLOCK, 2 * BLOCK + 77])
def test_unique_samples_of_a_mixture_are_those_that_were_read(numbered, n_samples):
    """A small corpus is read over and over, a large one not to its end."""
    stream = Stream([(numbered(200_000), 0.5), (numbered(840, "small"), 0.5)], 8, seed=3)
    places = stream.sample_locations(0, n_samples)
    read: dict[str, int] = {}
    for place in places:
        read[place.corpus] = read.get(place.corpus, 0) + 1
    expected = sum(
        min(n, 104 if "small" in name else (200_000 - 8) // 8) for name, n in read.items()
    )
    assert unique_samples(stream.shares, 3, n_samples) == expected


def test_weight_below_resolution_is_refused(numbered):
    with pytest.raises(ValueError, match=r"weight 1e-06 of .*mixture"):
        Stream([(numbered(100), 1.0), (numbered(100), 1e-6)], 8, seed=0)


def test_too_small_for_one_sample(numbered):
    shards = numbered(8)
    with pytest.raises(ValueError, match=r"has 8 tokens; one sample needs model.seq_len \+ 1 = 9"):
        Stream([(shards, 1.0)], 8, seed=0)
    with pytest.raises(ValueError, match="one sample needs"):
        next(evaluation_batches(shards, 8, 4))
    assert Stream([(shards, 1.0)], 7, seed=0).batch(0, 2).tokens_BT.tolist() == [list(range(7))] * 2


@settings(deadline=None, max_examples=30)
@given(n=st.integers(9, 300), seq_len=st.integers(1, 8), batch=st.integers(1, 9))
def test_evaluation_covers_the_split_in_order(numbered, n, seq_len, batch):
    batches = list(evaluation_batches(numbered(n), seq_len, batch))
    assert all(b.tokens_BT.shape == (batch, seq_len) for b in batches)
    tokens, targets, weights = (
        np.concatenate([getattr(b, name) for b in batches])
        for name in ("tokens_BT", "targets_BT", "weights_BT")
    )
    blocks = (n - 1) // seq_len
    real = weights.all(axis=1)
    assert real.tolist() == [True] * blocks + [False] * (len(real) - blocks)
    assert tokens[real].ravel().tolist() == list(range(blocks * seq_len))
    assert targets[real].ravel().tolist() == list(range(1, blocks * seq_len + 1))
    assert not weights[~real].any()
    halves = [
        list(evaluation_batches(numbered(n), seq_len, batch, rows=rows))
        for rows in (slice(0, batch // 2), slice(batch // 2, batch))
    ]
    joined = [np.concatenate([a.tokens_BT, b.tokens_BT]) for a, b in zip(*halves, strict=True)]
    assert np.array_equal(np.concatenate(joined), tokens)


def test_evaluation_can_stop_early(numbered):
    batches = list(evaluation_batches(numbered(1000), 8, 4, max_sequences=6))
    assert [int(b.weights_BT.any(axis=1).sum()) for b in batches] == [4, 2]


def test_separate_documents_with_end_of_text(make_corpus):
    """End of text ends a document as a target and opens the next as an input: all targets count."""
    texts = ["abc", "de", "fghij" * 3]
    shards = make_corpus(texts, validation_fraction=0.0).split("train")
    [batch] = evaluation_batches(shards, 12, 1, max_sequences=1, separate_documents=True)
    assert batch.tokens_BT.tolist() == [[*b"abc", 256, *b"de", 256, *b"fghij"]]
    assert batch.segments_BT.tolist() == [[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]]
    assert batch.weights_BT.all()
    assert next(evaluation_batches(shards, 12, 1)).segments_BT is None


def test_separate_documents_without_end_of_text(make_corpus):
    shards = make_corpus(["abc", "de", "fghij"], tokenizer="char", validation_fraction=0.0).split(
        "train"
    )
    [batch] = evaluation_batches(shards, 9, 1, separate_documents=True)
    assert batch.segments_BT.tolist() == [[1, 1, 1, 2, 2, 3, 3, 3, 3]]
    assert batch.weights_BT.tolist() == [[1, 1, 0, 1, 0, 1, 1, 1, 1]], "no target across a border"


@settings(deadline=None, max_examples=20)
@given(start=st.integers(0, 3000), length=st.integers(1, 300))
def test_segments_agree_with_the_text(segmented, start, length):
    shards, owner = segmented
    start = min(start, shards.n_tokens - length)
    expected = owner[start : start + length]
    assert shards.segments(start, length).tolist() == (expected - expected[0] + 1).tolist()


@pytest.fixture(scope="module")
def segmented(tmp_path_factory, random_texts):
    root = tmp_path_factory.mktemp("segmented")
    texts = random_texts(60)
    (root / "text").mkdir()
    for i, text in enumerate(texts):
        (root / "text" / f"{i:02d}").write_text(text, newline="")
    config = DataConfig(
        source="text", path=str(root / "text"), tokenizer="byte", validation_fraction=0.0
    )
    shards = build(config, root / "out", progress=False, part_bytes=3000).split("train")
    # The end-of-text byte of document i belongs to document i + 1.
    lengths = [len(t.encode()) for t in texts]
    lengths = [lengths[0], *(n + 1 for n in lengths[1:]), 1]
    return shards, np.repeat(np.arange(len(lengths)), lengths)


def test_speed(numbered):
    """20 times faster than training at the smallest size (28,600 tokens/s): 0.6 million; in
    processor time, with room for a busy machine (15 million were measured)."""
    stream = Stream([(numbered(100_000), 0.3), (numbered(50_000), 0.7)], 64, seed=0)
    stream.batch(0, 12)
    begin = time.process_time()
    for step in range(500):
        stream.batch(step * 12, 12)
    assert 500 * 12 * 64 / (time.process_time() - begin) > 2e6
