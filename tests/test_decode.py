"""Decoding equals full passes, whatever the batch, the context's end and who looks on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.inference.decode import (
    STEPS_A_DISPATCH,
    _decode,
    _prefill,
    decoding_params,
    generate_tokens,
)
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.models.gpt import make_gpt

SMALL = {"vocab_size": 13, "seq_len": 8, "n_layers": 2, "d_model": 16, "n_heads": 4}


@functools.cache
def base_model():
    """A small model with parameters far from their initialisation: logits tell tokens apart."""
    config = ModelConfig(
        **SMALL, vocab_multiple=8, layer_pattern=("banded",), window=6, norm="rmsnorm", bias=False
    )
    model = make_gpt(config, ComputeConfig(dtype="float32", layers="scan", attention="reference"))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    random = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda x: jnp.asarray(random.normal(0, 0.5, x.shape), jnp.float32), shapes
    )


@functools.cache
def full_pass():
    model, params = base_model()
    return jax.jit(lambda tokens_BT: model.apply(params, tokens_BT))


PROMPTS = [np.array([3, 1, 4]), np.array([9]), np.array([1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7])]
"""Within the context of 8 tokens, one token, and longer than the context."""


def greedy_by_full_passes(prompt, n_new, penalty):
    """The plain form: one full pass a token, over the context that the documentation promises."""
    text, start, seq_len = list(prompt), max(0, len(prompt) - 8), 8
    for _ in range(n_new):
        if len(text) - start > seq_len:
            start = len(text) - seq_len // 2
        context = text[start:]
        padded = np.zeros((1, seq_len), np.int32)
        padded[0, : len(context)] = context
        logits = np.array(full_pass()(padded)[0, len(context) - 1])
        for token in set(text):
            logits[token] *= 1 / penalty if logits[token] > 0 else penalty
        text.append(int(np.argmax(logits)))
    return text[len(prompt) :]


@pytest.mark.smoke
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_the_argmax_of_full_passes_beyond_the_context_too(penalty):
    model, params = base_model()
    sampling = SamplingConfig(temperature=0, repetition_penalty=penalty, max_new_tokens=21)
    batch = generate_tokens(model, params, PROMPTS, sampling)
    assert len({tuple(row) for row in batch}) == 3
    for prompt, row in zip(PROMPTS, batch, strict=True):
        assert row.tolist() == greedy_by_full_passes(prompt, 21, penalty)


SAMPLED = SamplingConfig(temperature=1.5, top_k=9, top_p=0.95, max_new_tokens=21, seed=3)


def sample(prompts, **changes):
    model, params = base_model()
    return [r.tolist() for r in generate_tokens(model, params, prompts, SAMPLED, **changes)]


@pytest.mark.smoke
def test_samples_do_not_depend_on_the_batch_nor_on_being_watched():
    together = sample(PROMPTS)
    assert sample(PROMPTS[:1]) == together[:1]
    assert sample(PROMPTS[::-1]) == together[::-1]

    heard = [[] for _ in PROMPTS]

    def on_token(row, token):
        heard[row].append(token)
        return False

    assert sample(PROMPTS, on_token=on_token) == together
    assert [row[:-1] for row in heard] == together
    assert [row[-1] for row in heard] == [None] * 3
    assert all(None not in row[:-1] for row in heard)


def test_seeds_and_equal_prompts():
    model, params = base_model()
    first, second, other = sample([PROMPTS[0], PROMPTS[0], PROMPTS[2]])
    assert first != second
    assert sample([PROMPTS[0], PROMPTS[2], PROMPTS[0]]) == [first, other, second]
    reseeded = dataclasses.replace(SAMPLED, seed=2**32 - 1)
    assert generate_tokens(model, params, PROMPTS[:1], reseeded)[0].tolist() != first


def test_end_of_text_ends_a_row_and_no_other():
    together = sample(PROMPTS)
    end = together[0][4]
    ended = sample(PROMPTS, end_of_text=end)
    assert ended == [row[: row.index(end)] if end in row else row for row in together]
    assert len(ended[0]) <= 4


def test_the_listener_ends_a_row_at_any_token():
    together = sample(PROMPTS)
    n_heard = [0] * 3
    limits = [STEPS_A_DISPATCH + 2, 1, 10**9]
    complete = []

    def on_token(row, token):
        if token is None:
            complete.append(row)
            return False
        n_heard[row] += 1
        return n_heard[row] == limits[row]

    cut = sample(PROMPTS, on_token=on_token)
    assert cut == [row[:limit] for row, limit in zip(together, limits, strict=True)]
    assert n_heard == [len(row) for row in cut]
    assert complete == [1, 0, 2]


def test_ids_outside_the_vocabulary_are_never_drawn():
    model, params = base_model()
    hot = SamplingConfig(temperature=1e30, max_new_tokens=21)
    prompts = [np.array([1])] * 4
    drawn = np.concatenate(generate_tokens(model, params, prompts, hot))
    assert sorted(set(drawn.tolist())) == list(range(13))
    drawn = np.concatenate(generate_tokens(model, params, prompts, hot, vocab_size=4))
    assert sorted(set(drawn.tolist())) == list(range(4))


def test_similar_sizes_share_a_compiled_program():
    model, params = base_model()
    sample(PROMPTS)
    n_compiled = _decode._cache_size() + _prefill._cache_size()
    for n_rows, length, n_new in ((3, 8, 17), (4, 5, 24)):
        prompts = [np.full(length, row) for row in range(n_rows)]
        sampling = dataclasses.replace(SAMPLED, max_new_tokens=n_new, seed=n_new)
        generate_tokens(model, params, prompts, sampling, end_of_text=n_rows, vocab_size=9)
    assert _decode._cache_size() + _prefill._cache_size() == n_compiled


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_prepared_parameters_give_the_same_tokens_and_are_prepared_once(layers):
    compute = ComputeConfig(dtype="bfloat16", products="cpu", layers=layers)
    model = make_gpt(base_model()[0].config, compute)
    params = base_model()[1]
    prepared = decoding_params(model, params)
    assert ("blocks" in prepared) == (layers == "scan")
    assert prepared["embedding"]["tokens"].dtype == jnp.bfloat16
    assert decoding_params(model, prepared) is prepared
    for given, made in zip(
        generate_tokens(model, params, PROMPTS, SAMPLED),
        generate_tokens(model, prepared, PROMPTS, SAMPLED),
        strict=True,
    ):
        np.testing.assert_array_equal(given, made)


def test_mistakes_in_prompts_are_named():
    model, params = base_model()
    with pytest.raises(ValueError, match="token id 13; the model knows 0 to 12"):
        generate_tokens(model, params, [np.array([1, 13])], SAMPLED)
    with pytest.raises(ValueError, match="no tokens"):
        generate_tokens(model, params, [np.array([], int)], SAMPLED)
    assert generate_tokens(model, params, [], SAMPLED) == []
