"""Every kernel computes the same function, and that function is numpy's."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.models import blockwise as blocks_module
from gpt_jax.models.attention import attend
from gpt_jax.models.fused import splash
from gpt_jax.models.kernels import choose_kernel
from gpt_jax.models.pattern import Pattern
from gpt_jax.models.products import precision

FLOAT32 = precision("float32", "auto", "cpu")


def draw(n_tokens, n_heads, n_kv_heads, head_size, seed=0, n_batch=2):
    random = np.random.default_rng(seed)
    sizes = [n_heads, n_kv_heads, n_kv_heads]
    shapes = [(n_batch, n_tokens, n, head_size) for n in sizes]
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


def by_numpy(q, k, v, window, slopes, segments):
    """Attention as it is defined, one query and head at a time, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    n_batch, n_tokens, n_heads, head_size = q.shape
    served = n_heads // k.shape[2]
    out = np.zeros_like(q)
    for b, t, n in np.ndindex(n_batch, n_tokens, n_heads):
        first = 0 if window is None else max(0, t - window + 1)
        seen = [
            s for s in range(first, t + 1) if segments is None or segments[b, s] == segments[b, t]
        ]
        scores = k[b, seen, n // served] @ q[b, t, n] / math.sqrt(head_size)
        if slopes is not None:
            scores -= slopes[n] * (t - np.array(seen))
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights / weights.sum() @ v[b, seen, n // served]
    return out


SEGMENTS = np.repeat([[0, 1, 2], [5, 6, 6]], [4, 1, 4], axis=1)

PATTERNS = {
    "banded_segments": (4, 1, 3, None, SEGMENTS),
    "dense_alibi": (4, 2, None, (0.5, 0.25, 0.125, 0.0625), None),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_blockwise_and_reference_are_numpys_forward_and_backward(name, monkeypatch):
    n_heads, n_kv_heads, window, slopes, segments = PATTERNS[name]
    # 9 tokens in blocks of 2: a range of 3 blocks in a loop, then one of a block and a remainder.
    monkeypatch.setattr(blocks_module, "STATIC_PARTS", 2)
    qkv = draw(9, n_heads, n_kv_heads, 4)
    pattern = Pattern(window, slopes)

    def run(kernel, q, k, v):
        return attend(kernel, q, k, v, pattern, FLOAT32, 2, segments)

    @jax.jit
    def forward_and_backward(q, k, v):
        results = []
        for kernel in ("reference", "blockwise"):
            out, backward = jax.vjp(functools.partial(run, kernel), q, k, v)
            results.append((out, *backward(jnp.cos(3 * out))))
        return results

    programs = {
        str(jax.make_jaxpr(run, static_argnums=0)(k, *qkv)) for k in ("reference", "blockwise")
    }
    assert len(programs) == 2
    reference, blockwise = forward_and_backward(*qkv)
    expected = by_numpy(*qkv, window, slopes, segments)
    np.testing.assert_allclose(reference[0], expected, atol=2e-5)
    for ours, plain in zip(blockwise, reference, strict=True):
        np.testing.assert_allclose(ours, plain, atol=2e-5)


def test_blockwise_never_holds_all_scores(equations):
    q, k, v = draw(64, 2, 2, 4)

    def largest(kernel):
        run = functools.partial(attend, kernel, pattern=Pattern(), how=FLOAT32, block=4)
        gradient = jax.grad(lambda *qkv: jnp.sum(run(*qkv)))
        return max(o.aval.size for e in equations(gradient, q, k, v) for o in e.outvars)

    assert largest("reference") == 2 * 2 * 64 * 64
    assert largest("blockwise") == 2 * 2 * 64 * (4 + 1)  # values, and a column of ones


@pytest.mark.parametrize("kernel", ["reference", "blockwise"])
def test_dropout_drops_its_share_and_keeps_the_mean(kernel):
    # One key: weights are 1, and dropped weights leave zeros.
    q, k, _ = draw(1, 64, 64, 1, n_batch=64)
    v = jnp.ones_like(k)
    run = functools.partial(attend, kernel, q, k, v, Pattern(dropout=0.25), FLOAT32, 1)
    out = np.asarray(run(dropout_key=jax.random.key(0)))
    np.testing.assert_allclose(np.unique(out), [0, 1 / 0.75], rtol=1e-6)
    assert (out == 0).mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(run(), np.ones_like(out))


SPLASH_PATTERNS = {
    "banded": (2, 1, 100, None, 64),
    "segments": (4, 2, None, np.repeat([[3, 4]], [150, 106], axis=1), 64),
    "padded heads": (2, 2, 100, None, 80),  # GPT-3 2.7B's
}


@pytest.mark.parametrize("name", SPLASH_PATTERNS)
def test_splash_is_the_reference(name):
    n_heads, n_kv_heads, window, segments, head_size = SPLASH_PATTERNS[name]
    qkv = draw(256, n_heads, n_kv_heads, head_size, n_batch=1)
    segments = None if segments is None else jnp.asarray(segments)

    def gradients(function, *qkv):
        out, backward = jax.vjp(function, *qkv)
        return out, *backward(jnp.cos(3 * out))

    def fused(q, k, v):
        return splash(q, k, v, Pattern(window), segments, None, interpret=True)

    def plain(q, k, v):
        return attend("reference", q, k, v, Pattern(window), FLOAT32, 128, segments)

    for ours, theirs in zip(
        jax.jit(functools.partial(gradients, fused))(*qkv),
        jax.jit(functools.partial(gradients, plain))(*qkv),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


@pytest.mark.parametrize("window", [None, 32])
def test_cudnn_lowers_for_cuda(window, monkeypatch):
    # jax asks the installed cuDNN and GPU what they are: the one part of lowering that needs them.
    asked = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{asked}.check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(f"{asked}.check_compute_capability", lambda _: True)
    qkv = [x.astype(jnp.bfloat16) for x in draw(64, 4, 2, 64)]
    how = precision("bfloat16", "auto", "gpu")

    def loss(q, k, v):
        out = attend("cudnn", q, k, v, Pattern(window), how, 64)
        return jnp.sum(out.astype(jnp.float32))

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*qkv)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "cudnn$fmha" in text


MODEL = {"d_model": 512, "n_heads": 4, "n_layers": 1, "seq_len": 256}


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("model", "compute", "backend", "kernel"),
    [
        ({}, {}, "tpu", "splash"),
        ({}, {}, "gpu", "cudnn"),
        ({}, {}, "cpu", "blockwise"),
        ({"seq_len": 64}, {}, "cpu", "reference"),
        ({"position": "alibi"}, {}, "tpu", "blockwise"),
        ({"scores": ("sinks",)}, {}, "tpu", "splash"),
        ({"scores": ("sinks",)}, {}, "gpu", "blockwise"),
        ({"dropout_attention": 0.1}, {}, "gpu", "blockwise"),
        ({"seq_len": 200}, {}, "tpu", "blockwise"),
        ({"head_size": 96}, {}, "tpu", "splash"),
        ({"head_size": 256}, {}, "gpu", "blockwise"),
        ({}, {"dtype": "float32"}, "gpu", "blockwise"),
        ({}, {"attention": "reference"}, "tpu", "reference"),
        ({}, {"attention": "splash"}, "tpu", "splash"),
    ],
)
def test_the_kernel_that_runs(model, compute, backend, kernel):
    chosen = choose_kernel(ModelConfig(**MODEL | model), ComputeConfig(**compute), backend)
    assert chosen.name == kernel
    assert chosen.reason
    fell_back = "attention" not in compute and kernel not in ("splash", "cudnn", "ring")
    assert chosen.fell_back == (backend != "cpu" and fell_back)
    if chosen.fell_back:
        assert chosen.warning.startswith("WARNING: attention runs as blockwise")
        strict = ComputeConfig(**compute, strict=True)
        with pytest.raises(
            ValueError, match=r"compute.strict: .* cannot run: .*compute.attention = "
        ):
            choose_kernel(ModelConfig(**MODEL | model), strict, backend)
    else:
        assert not chosen.warning


@pytest.mark.parametrize(
    ("model", "kernel", "backend", "message"),
    [
        ({}, "splash", "cpu", "needs a TPU, this is cpu; allowed here: auto, reference, blockwise"),
        ({}, "cudnn", "tpu", "needs a GPU, this is tpu; allowed here: auto, .*splash"),
        ({"position": "alibi"}, "splash", "tpu", "it has no ALiBi"),
        ({"scores": ("soft_cap", "sinks")}, "cudnn", "gpu", "it has no soft_cap"),
        ({"dropout_attention": 0.1}, "cudnn", "gpu", "model.dropout_attention"),
        ({"seq_len": 200}, "splash", "tpu", "multiple of 128, not 200"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused(model, kernel, backend, message):
    config, compute = ModelConfig(**MODEL | model), ComputeConfig(attention=kernel)
    with pytest.raises(ValueError, match=f"compute.attention = {kernel} cannot run: .*{message}"):
        choose_kernel(config, compute, backend)
