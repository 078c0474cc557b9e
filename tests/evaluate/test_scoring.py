"""Batched scores are those of one request at a time, by another road; windows cover once."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig
from gpt_jax.cost import blocks
from gpt_jax.evaluate import scoring
from gpt_jax.evaluate.scoring import Request, Scorer, bucket, scoring_weights, windows
from gpt_jax.models.gpt import make_gpt
from gpt_jax.parallel.sharding import make_layout

SEQ_LEN = 40


@functools.cache
def trained(products="auto"):
    """(model, layout, params) that tell tokens apart, with a soft cap and a padded vocabulary."""
    model = ModelConfig(
        vocab_size=29, vocab_multiple=8, seq_len=SEQ_LEN, n_layers=2, d_model=16, n_heads=4,
        logit_soft_cap=5.0,
    )  # fmt: skip
    layout = make_layout(Config(model=model, mesh=MeshConfig()), jax.devices()[:1])
    gpt = make_gpt(model, ComputeConfig(dtype="float32", products=products), layout)
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(gpt.init, jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.5, x.shape), "float32"), shapes)
    return gpt, layout, params


@functools.cache
def scorer(products="auto", banned=()):
    model, layout, params = trained(products)
    return Scorer(model, scoring_weights(model, params), layout, banned, batch_tokens=256)


@functools.cache
def whole_logits():
    return jax.jit(scorer().model.apply)


@functools.cache
def log_probabilities(ids):
    """[T, V] of whole logits, one text at a time, padded to the context: one shape."""
    padded = np.zeros((1, SEQ_LEN), np.int32)
    padded[0, : len(ids)] = ids
    logits = whole_logits()(trained()[2], padded)[0, : len(ids), :29]
    logits = np.asarray(logits, np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def one_by_one(request):
    """(log-probability, greedy) of a request that fits after cutting its context."""
    ids = (*request.context, *request.continuation)[-SEQ_LEN - 1 :]
    n = len(request.continuation)
    table = log_probabilities(ids[:-1])[-n:]
    return sum(row[t] for row, t in zip(table, ids[-n:], strict=True)), all(
        int(np.argmax(row)) == t for row, t in zip(table, ids[-n:], strict=True)
    )


def requests(n=40):
    random = np.random.default_rng(1)
    found = []
    for i in range(n):
        context = random.integers(29, size=random.integers(1, 70)).tolist()
        length = int(random.integers(1, 12))
        continuation = random.integers(29, size=length).tolist()
        if i % 4 == 0:  # what greedy decoding would say
            continuation = []
            for _ in range(length):
                ids = tuple((*context, *continuation)[-SEQ_LEN:])
                continuation.append(int(np.argmax(log_probabilities(ids)[-1])))
        found.append(Request(tuple(context), tuple(continuation)))
    return found


@pytest.mark.smoke
@pytest.mark.parametrize("products", ["auto", "plain"])
def test_batches_score_as_one_text_at_a_time(products, monkeypatch):
    monkeypatch.setattr(blocks, "VOCABULARY_PART", 11)  # several parts, the last one short
    scoring._score_batch.clear_cache()
    asked = requests()
    got = scorer(products).score_all(asked)
    want = [one_by_one(request) for request in asked]
    np.testing.assert_allclose([s.log_probability for s in got], [w[0] for w in want], rtol=2e-5)
    # A greedy continuation whose context is cut anew for each token may differ beyond the context.
    assert [s.greedy for s in got] == [w[1] for w in want]
    assert sum(s.greedy for s in got) >= 5
    assert [s.n_tokens for s in got] == [len(r.continuation) for r in asked]
    assert [s.allowed for s in got] == [s.greedy for s in got]
    scoring._score_batch.clear_cache()


def test_a_score_depends_on_its_own_request_alone():
    asked = requests()
    together = scorer().score_all(asked)
    plain = scorer().model.apply(trained()[2], jnp.asarray([[3, 1, 4]]))[0, :, :29]
    np.testing.assert_allclose(jax.nn.log_softmax(plain), log_probabilities((3, 1, 4)), atol=1e-5)
    alone = [scorer().score_all([request])[0] for request in asked[:3]]
    backwards = scorer().score_all(asked[::-1])[::-1]
    for other in (alone, backwards[:3]):
        for a, b in zip(other, together, strict=False):
            assert a.log_probability == pytest.approx(b.log_probability, abs=1e-5)
            assert (a.greedy, a.n_tokens) == (b.greedy, b.n_tokens)


def test_weights_are_rounded_where_products_round_them_and_are_else_the_same_arrays():
    config = ModelConfig(vocab_size=32, seq_len=8, n_layers=2, d_model=16, n_heads=4)
    for dtype in ("float32", "bfloat16"):
        model = make_gpt(config, ComputeConfig(dtype=dtype))
        params = jax.jit(model.init)(jax.random.key(0))
        weights = scoring_weights(model, params)
        for path, x in jax.tree_util.tree_leaves_with_path(weights.params):
            is_rounded = dtype == "bfloat16" and path[-1].key == "kernel"
            assert x.dtype == (jnp.bfloat16 if is_rounded else jnp.float32)
        if dtype == "float32":
            assert all(map(operator.is_, *map(jax.tree.leaves, (params, weights.params))))
        (table_VD,) = weights.tables
        assert table_VD.dtype == jnp.dtype(dtype)
        assert (table_VD is params["embedding"]["tokens"]) == (dtype == "float32")


def test_weights_that_are_cut_compute_the_same(monkeypatch):
    config = ModelConfig(
        vocab_size=32, seq_len=8, n_layers=4, d_model=16, n_heads=4, window=4,
        layer_pattern=("dense", "banded"),
    )  # fmt: skip
    compute = ComputeConfig(dtype="bfloat16", products="cpu", layers="unroll")
    model = make_gpt(config, compute)
    params = jax.jit(model.init)(jax.random.key(0))
    monkeypatch.setattr(blocks, "VOCABULARY_PART", 12)
    weights = scoring_weights(model, params)
    assert [table.shape for table in weights.tables] == [(12, 16), (12, 16), (8, 16)]
    assert {"blocks_0", "blocks_1"} < weights.params.keys()
    tokens, segments = np.arange(16).reshape(2, 8), np.arange(16).reshape(2, 8) // 5
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(
        apply(weights.params, tokens, segments), apply(params, tokens, segments), atol=1e-5
    )


def test_few_programs_are_compiled():
    scoring._score_batch.clear_cache()
    scorer().score_all(requests(80))
    assert scoring._score_batch._cache_size() <= 8
    assert all(n <= bucket(n) <= max(16, n * 5 / 4) for n in range(1, 5000))
    assert len({bucket(n) for n in range(1, 1025)}) <= 26


def test_banned_words_are_passed_over_at_the_beginning_alone():
    context = (3, 1, 4)
    order = np.argsort(log_probabilities(context)[-1])[::-1]
    first, second = int(order[0]), int(order[1])
    banning = scorer(banned=(first,))
    at_first, at_second = banning.score_all([Request(context, (c,)) for c in (first, second)])
    assert (at_first.greedy, at_first.allowed) == (True, False)
    assert (at_second.greedy, at_second.allowed) == (False, True)
    # Later the banned id counts as ever.
    following = int(np.argmax(log_probabilities((*context, second))[-1]))
    (score,) = scorer(banned=(first, following)[:1]).score_all(
        [Request(context, (second, following))]
    )
    assert score.allowed
    assert not score.greedy


def test_a_continuation_longer_than_the_context_is_scored_in_windows():
    random = np.random.default_rng(2)
    ids = tuple(random.integers(29, size=150).tolist())
    (score,) = scorer().score_all([Request(ids[:3], ids[3:])])
    total = 0.0
    for start, first, stop in windows(150, 3, SEQ_LEN):
        table = log_probabilities(ids[start : stop - 1])
        total += sum(table[i - start - 1][ids[i]] for i in range(first, stop))
    assert score.log_probability == pytest.approx(total, rel=1e-5)


@given(
    n_tokens=st.integers(2, 400),
    n_given=st.integers(1, 60),
    seq_len=st.integers(1, 50),
    stride=st.integers(1, 50),
)
def test_windows_score_each_token_once_with_the_context_promised(
    n_tokens, n_given, seq_len, stride
):
    n_given, stride = min(n_given, n_tokens - 1), min(stride, seq_len)
    cut = windows(n_tokens, n_given, seq_len, stride)
    scored = [i for w in cut for i in range(w.first, w.stop)]
    assert scored == list(range(n_given, n_tokens))
    for number, w in enumerate(cut):
        assert 0 <= w.start < w.first < w.stop
        assert w.stop - w.start - 1 <= seq_len
        if number:
            assert w.stop - w.first <= stride
            assert w.first - w.start >= min(w.first, seq_len + 1 - stride)
    if n_tokens - n_given <= seq_len:
        assert len(cut) == 1


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="token id 29; the model knows 0 to 28"):
        scorer().score_all([Request((1,), (29,))])
    with pytest.raises(ValueError, match="nothing to score"):
        scorer().score_all([Request((1,), ())])
    with pytest.raises(ValueError, match="stride = 0; allowed: 1 to"):
        windows(10, 1, 5, 0)
