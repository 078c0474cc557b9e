"""Filters against plain numpy forms, and draws against the probabilities they should have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpt_jax.inference.sampling import (
    SamplingConfig,
    choose_tokens,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    likeliest,
    penalise_repetition,
)

N_ROWS, N_TOKENS = 3, 7

# Few distinct values, so that ties are common.
logit_rows = st.lists(
    st.integers(-6, 6).map(lambda n: n / 2), min_size=N_ROWS * N_TOKENS, max_size=N_ROWS * N_TOKENS
).map(lambda values: np.array(values, np.float32).reshape(N_ROWS, N_TOKENS))
quick = settings(max_examples=60, deadline=None)


def probabilities(row):
    weights = np.exp(np.asarray(row, np.float64) - np.max(row))
    return weights / weights.sum()


def kept(filtered):
    return np.isfinite(np.asarray(filtered))


@quick
@given(logit_rows, st.integers(1, N_TOKENS + 2))
def test_top_k_keeps_the_k_highest_and_their_ties(logits, k):
    mask = kept(keep_top_k(jnp.asarray(logits), k))
    for row, row_kept in zip(logits, mask, strict=True):
        last = sorted(row, reverse=True)[min(k, N_TOKENS) - 1]
        np.testing.assert_array_equal(row_kept, row >= last)


@quick
@given(logit_rows, st.floats(0.01, 1.0))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, p):
    mask = kept(keep_top_p(jnp.asarray(logits), p))
    for row, row_kept in zip(logits, mask, strict=True):
        probability = probabilities(row)
        total, last = 0.0, np.inf
        for token in np.argsort(-row, kind="stable"):
            # A sum that meets p to rounding may fall on either side.
            assume(abs(total - p) > 1e-5)
            if total >= p:
                break
            total, last = total + probability[token], row[token]
        np.testing.assert_array_equal(row_kept, row >= last)


@quick
@given(logit_rows, st.floats(0.0, 1.0))
def test_min_p_compares_with_the_likeliest(logits, p):
    mask = kept(keep_min_p(jnp.asarray(logits), p))
    for row, row_kept in zip(logits, mask, strict=True):
        ratio = probabilities(row) / probabilities(row).max()
        assume((abs(ratio - p) > 1e-5).all() or p == 1)
        np.testing.assert_array_equal(row_kept, ratio >= p)


@quick
@given(logit_rows, st.integers(0, 2**N_TOKENS - 1), st.floats(0.5, 3.0))
def test_repetition_penalty_makes_seen_tokens_less_likely(logits, bits, penalty):
    seen = np.array([bits >> i & 1 for i in range(N_TOKENS)], bool)
    seen_BV = np.broadcast_to(seen, logits.shape)
    penalised = np.asarray(penalise_repetition(jnp.asarray(logits), jnp.asarray(seen_BV), penalty))
    for value, before, was_seen in zip(penalised.flat, logits.flat, seen_BV.flat, strict=True):
        expected = before
        if was_seen:
            expected = before / penalty if before > 0 else before * penalty
        assert value == pytest.approx(expected, rel=1e-6)


FILTERED = SamplingConfig(temperature=0.7, top_k=5, top_p=0.9, min_p=0.05, repetition_penalty=1.5)


@pytest.mark.smoke
def test_draws_follow_the_filtered_distribution_in_the_documented_order():
    logits = np.array([2.0, 1.6, 1.2, 0.3, 0.2, -0.5, -4.0, -np.inf], np.float32)
    seen = np.array([1, 0, 0, 0, 0, 1, 0, 0], bool)
    expected = np.where(seen, np.where(logits > 0, logits / 1.5, logits * 1.5), logits) / 0.7
    expected[np.argsort(-expected)[5:]] = -np.inf
    probability = probabilities(expected)
    order = np.argsort(-expected)
    before = np.cumsum(probability[order]) - probability[order]
    expected[order[before >= 0.9]] = -np.inf
    expected[probabilities(expected) < 0.05 * probabilities(expected).max()] = -np.inf
    probability = probabilities(expected)
    assert 2 <= np.count_nonzero(probability) <= 4

    n = 5_000
    drawn = choose_tokens(
        jnp.broadcast_to(logits, (n, len(logits))),
        jnp.broadcast_to(seen, (n, len(seen))),
        jax.random.split(jax.random.key(0), n),
        FILTERED,
    )
    frequency = np.bincount(np.asarray(drawn), minlength=len(logits)) / n
    # Four standard deviations; what is filtered out has probability and deviation zero.
    allowed = 4 * np.sqrt(probability * (1 - probability) / n)
    assert (abs(frequency - probability) <= allowed).all()


@given(st.lists(st.sampled_from([-np.inf, -2.0, 0.0, 1.5]), min_size=1, max_size=9))
def test_the_likeliest_of_equals_is_the_first(logits):
    logits_BV = np.array([logits, logits[::-1]], np.float32)
    np.testing.assert_array_equal(likeliest(logits_BV), np.argmax(logits_BV, axis=1))


def test_greedy_is_the_argmax_after_the_penalty():
    logits, seen = jnp.array([[3.0, 2.5]]), jnp.array([[True, False]])
    keys = jax.random.split(jax.random.key(0), 1)
    greedy = SamplingConfig(temperature=0)
    assert choose_tokens(logits, seen, keys, greedy).tolist() == [0]
    penalised = SamplingConfig(temperature=0, repetition_penalty=2.0)
    assert choose_tokens(logits, seen, keys, penalised).tolist() == [1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"{field} = .*allowed.*--{field.replace('_', '-')}"):
        SamplingConfig(**{field: value})
