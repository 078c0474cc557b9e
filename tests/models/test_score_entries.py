"""Changes of attention scores: every form computes them, and they are what their papers say."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import Config, ModelConfig, overrides
from gpt_jax.models.attention import attend
from gpt_jax.models.attention_probe import attention_weights
from gpt_jax.models.cached_attention import attend_cached
from gpt_jax.models.entry import Change, score_changes
from gpt_jax.models.fused import splash
from gpt_jax.models.pattern import Pattern
from gpt_jax.models.products import precision

CPU, PLAIN = precision("float32", "auto", "cpu"), precision("float32", "plain", "cpu")
LOGIT = np.array([-1.0, 0.0, 0.5, 2.0], np.float32)
CASES = {
    "sinks": {"scores": ("sinks",)},
    "both": {"scores": ("soft_cap", "sinks"), "options": {"soft_cap": {"cap": 0.8}}},
}


def draw(n_tokens: int, head_size: int = 4):
    random = np.random.default_rng(0)
    return [
        jnp.asarray(random.normal(size=(2, n_tokens, n, head_size)), jnp.float32) for n in (4, 2, 2)
    ]


def pattern(case: str, logit, window: int | None = 5, divisor: float | None = None) -> Pattern:
    model = ModelConfig(n_heads=4, **CASES[case])
    changes = [e.change(model, o, {"logit": logit}) for e, o in score_changes(model)]
    return Pattern(window, divisor=divisor, changes=tuple(changes))


def by_numpy(case: str, q, k, v, window: int) -> np.ndarray:
    """As the entries' papers define them, one query and head at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    for b, t, n in np.ndindex(q.shape[:3]):
        seen = slice(max(0, t - window + 1), t + 1)
        scores = k[b, seen, n // 2] @ q[b, t, n] / math.sqrt(q.shape[-1])
        if case != "sinks":
            scores = 0.8 * np.tanh(scores / 0.8)
        total = np.exp(scores).sum() + np.exp(LOGIT[n])
        out[b, t, n] = np.exp(scores) / total @ v[b, seen, n // 2]
    return out


@pytest.mark.parametrize("case", CASES)
def test_every_form_is_numpys_forward_and_the_plain_ones_backward(case):
    inputs = *draw(9), jnp.asarray(LOGIT)

    def run(kernel, how, q, k, v, logit):
        return attend(kernel, q, k, v, pattern(case, logit), how, 2)

    @jax.jit
    def both_ways(*inputs):
        found = []
        for kernel, how in (("reference", PLAIN), ("blockwise", PLAIN), ("blockwise", CPU)):
            out, backward = jax.vjp(functools.partial(run, kernel, how), *inputs)
            found.append((out, *backward(jnp.cos(3 * out))))
        return found

    plain, *others = both_ways(*inputs)
    np.testing.assert_allclose(plain[0], by_numpy(case, *inputs[:3], 5), atol=2e-5)
    assert np.abs(plain[4]).max() > 0.01
    for other in others:
        for ours, theirs in zip(other, plain, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=3e-5)


@pytest.mark.parametrize("case", CASES)
def test_decoding_and_the_probe_compute_the_same(case):
    q, k, v = draw(9)
    how, expected = PLAIN, by_numpy(case, q, k, v, 5)
    cached = [x.swapaxes(1, 2).reshape(4, 9, 4) for x in (k, v)]
    positions = jnp.broadcast_to(jnp.arange(9), (2, 9))

    @jax.jit
    def computed(q, k):
        own = pattern(case, LOGIT)
        return attend_cached(q, *cached, positions, own, how), attention_weights(q, k, None, own)

    out, share = computed(q, k)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    out = np.einsum("BNTS,BSNH->BTNH", share, np.repeat(v, 2, axis=2))
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_splash_computes_both():
    inputs = *draw(128, 64), jnp.asarray(LOGIT)

    def gradients(function):
        def loss(*inputs):
            out = function(*inputs)
            return jnp.sum(jnp.cos(3 * out)), out

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(*inputs)

    def fused(q, k, v, logit):
        return splash(q, k, v, pattern("both", logit, 100), None, None, interpret=True)

    def plain(q, k, v, logit):
        return attend("reference", q, k, v, pattern("both", logit, 100), PLAIN, 128)

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-3),
        gradients(fused),
        gradients(plain),
    )


def test_a_change_of_the_plain_forms_may_read_distances_and_parameters():
    q, k, v = draw(9)

    def run(logit, how):
        change = Change(scores=lambda s, distance: s - logit[:, None, None] * distance[:, None])
        own = Pattern(changes=(change,), cpu_form=False)
        return attend("blockwise", q, k, v, own, how, 2)

    slopes = np.abs(LOGIT)
    alibi = attend("reference", q, k, v, Pattern(slopes=tuple(map(float, slopes))), PLAIN, 9)
    for how in (PLAIN, CPU):
        out, gradient = jax.jit(jax.value_and_grad(lambda x, how=how: run(x, how).sum()))(slopes)
        np.testing.assert_allclose(out, alibi.sum(), atol=1e-4)
        assert np.abs(gradient).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": "sink"}, r"model\.scores = sink; allowed: .*did you mean 'sinks'"),
        ({"scores": "sinks,sinks"}, "names one of them twice"),
        ({"options.soft_cap.cap": 3}, r"options\.soft_cap belongs to nothing"),
        ({"scores": "soft_cap", "options.soft_cap.cap": -1}, r"\.cap = -1; allowed: number > 0"),
        ({"scores": "soft_cap", "options.soft_cap.cup": 1}, "did you mean 'cap'"),
        ({"position": "rotery"}, r"model\.position = rotery; .*did you mean 'rotary'"),
        ({"activation": "silu"}, r"model\.activation = silu; allowed: geglu\|"),
        ({"norm": "layer"}, r"model\.norm = layer; allowed: layernorm\|rmsnorm"),
    ],
)
def test_mistakes_are_one_line(changes, said):
    with pytest.raises(ValueError, match=said) as caught:
        overrides.override(Config(), {f"model.{k}": v for k, v in changes.items()})
    assert "\n" not in str(caught.value)


def test_earlier_fingerprints_stay_and_changes_have_their_own():
    plain, sinks = Config(), overrides.override(Config(), {"model.scores": "sinks"})
    started = overrides.override(sinks, {"model.options.sinks.start": "-2"})
    assert started.model.options == {"sinks": {"start": -2}}
    assert len({overrides.fingerprint(c) for c in (plain, sinks, started)}) == 3
