"""The whole model: what sees what, how it starts, and that no way of computing it changes it."""

import functools
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cover import covered

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.models import gpt
from gpt_jax.models.execution import decide_execution
from gpt_jax.models.gpt import make_gpt
from gpt_jax.models.layers import projection_std
from gpt_jax.objectives.cross_entropy import cross_entropy_sums

SMALL = {"vocab_size": 12, "seq_len": 12, "n_layers": 2, "d_model": 8, "n_heads": 2}
SCANNED = ComputeConfig(dtype="float32", layers="scan", attention="reference")
# Fewer operations to compile, where they do not matter.
PLAIN = {"norm": "rmsnorm", "bias": False}
TOKENS = np.arange(12)[None]


def random_params(model, seed=0, std=0.5):
    """Parameters far from their initialisation, so that nothing is nearly linear or symmetric."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.asarray(random.normal(0, std, x.shape), jnp.float32), shapes)


def small(compute=SCANNED, **changes):
    model = make_gpt(ModelConfig(**{**SMALL, **changes}), compute)
    return model, random_params(model)


# --- What an output depends on. ---

CAUSAL = np.tril(np.ones((12, 12), bool))
BAND = CAUSAL & ~np.tril(CAUSAL, -3)
SEGMENTS = np.repeat([0, 1, 2], [5, 1, 6])[None]
SAME = SEGMENTS.T == SEGMENTS
BLOCKWISE = ComputeConfig(dtype="float32", layers="scan", attention="blockwise", attention_block=2)

VISIBLE = {
    "dense": (PLAIN, SCANNED, None, CAUSAL),
    "banded": (
        PLAIN | {"layer_pattern": ("banded",), "window": 3, "position": "rotary"},
        BLOCKWISE,
        None,
        BAND @ BAND,
    ),
    "segments": (
        {"norm_position": "post", "position": "alibi"},
        BLOCKWISE,
        SEGMENTS,
        CAUSAL & SAME,
    ),
}


@pytest.mark.parametrize("name", VISIBLE)
def test_an_output_depends_on_what_it_may_see_and_on_nothing_else(name):
    """As in nanodo: the gradient with respect to the embedding of a token it may not see is 0."""
    changes, compute, segments, visible = VISIBLE[name]
    model, params = small(compute, tied_embeddings=False, **changes)

    @jax.jit
    def dependence(table):
        def outputs(table):
            changed = {**params, "embedding": {**params["embedding"], "tokens": table}}
            # All tokens differ, so that a row of the table is one position of the sequence.
            return jnp.sin(model.apply(changed, TOKENS, segments)[0]).sum(-1)

        return jnp.abs(jax.jacrev(outputs)(table)).sum(-1)

    np.testing.assert_array_equal(dependence(params["embedding"]["tokens"]) != 0, visible)


# --- Ways of computing. ---

WAYS = {
    "unrolled": {"layers": "unroll"},
    "full": {"remat": "full"},
    "dots": {"remat": "dots"},
    "attention": {"remat": "attention"},
    "offload": {"remat": "offload"},
}


@functools.cache
def gradients(**compute):
    how = ComputeConfig(**{"layers": "scan", "attention": "reference", **compute})
    model, params = small(how, **PLAIN)

    def loss(params):
        targets = np.roll(TOKENS, 1)
        return cross_entropy_sums(model.apply(params, TOKENS), targets, targets > 0).cross_entropy

    return loss, params, jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize("name", WAYS)
def test_scan_unroll_and_remat_give_the_same_loss_and_gradients(name, equations):
    plain, params, expected = gradients()
    other, _, ours = gradients(**WAYS[name])
    traced = [equations(jax.grad(f), params) for f in (plain, other)]
    scans = [[e.params["unroll"] for e in t if e.primitive.name == "scan"] for t in traced]
    assert (set(scans[0]), set(scans[1])) == ({1}, {2 if name == "unrolled" else 1})
    assert [any(e.primitive.name == "remat2" for e in t) for t in traced] == [
        False,
        name != "unrolled",
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, expected
    )


def test_offload_puts_the_inputs_of_groups_into_the_hosts_memory(equations):
    """One copy to it in the forward scan, one back in the backward scan."""
    loss, params, _ = gradients(remat="offload")
    traced = equations(jax.grad(loss), params)
    moved = [str(e.params["devices"]) for e in traced if e.primitive.name == "device_put"]
    assert any("Host" in place for place in moved)
    assert any("Device" in place for place in moved)
    plain, params, _ = gradients(remat="full")
    traced = equations(jax.grad(plain), params)
    assert not [e for e in traced if e.primitive.name == "device_put"]


def test_compiler_options_are_for_several_devices_of_a_backend():
    def options(backend, n_devices, **compute):
        how = ComputeConfig(attention="reference", **compute)
        return dict(decide_execution(ModelConfig(), how, backend, n_devices).compiler_options)

    found = options("gpu", 8)
    assert found["xla_gpu_enable_latency_hiding_scheduler"] is True
    assert options("gpu", 1) == options("cpu", 8) == options("gpu", 8, overlap="off") == {}
    # XLA knows every one of them, whatever it compiles for: another name is an error.
    jax.jit(lambda x: x + 1, compiler_options=found).lower(1.0).compile()
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_misspelt": True}).lower(1.0).compile()


def test_auto_unrolls_shallow_models_on_cpu_alone():
    def unrolls(n_layers, backend, layers="auto"):
        config = ModelConfig(n_layers=n_layers)
        return make_gpt(config, ComputeConfig(layers=layers), backend=backend).execution.unroll

    assert unrolls(12, "cpu")
    assert not unrolls(96, "cpu")
    assert not unrolls(12, "gpu")
    assert unrolls(96, "tpu", "unroll")


# --- Initialisation. ---


@pytest.mark.parametrize(
    ("matrices", "residual", "inside", "into_residual"),
    [
        ("fixed", "scaled", 0.3, 0.3 / math.sqrt(12)),
        ("fixed", "plain", 0.3, 0.3),
        ("fixed", "zero", 0.3, 0.0),
        ("fan_in", "scaled", 1 / 8, 1 / 8 / math.sqrt(12)),
        ("fan_in", "plain", 1 / 8, 1 / 8),
    ],
)
def test_standard_deviation_by_option(matrices, residual, inside, into_residual):
    config = ModelConfig(n_layers=6, init_std=0.3, init_matrices=matrices, init_residual=residual)
    assert projection_std(config, 64, residual=False) == pytest.approx(inside)
    assert projection_std(config, 64, residual=True) == pytest.approx(into_residual)


def test_standard_deviation_by_role():
    """Each role has a number of inputs of its own here: D = 64, N H = 96, F = 128; L = 3."""
    config = ModelConfig(
        **{"vocab_size": 500, "seq_len": 100, "n_layers": 3, "d_model": 64, "n_heads": 4},
        head_size=24,
        ffn_size=128,
        tied_embeddings=False,
        init_matrices="fan_in",
    )
    params = jax.jit(make_gpt(config, SCANNED).init)(jax.random.key(0))
    block = params["blocks"]["0"]
    attention, mlp = block["attention"], block["mlp"]
    expected = [
        (params["embedding"]["tokens"], 0.02),
        (params["embedding"]["positions"], 0.02),
        (params["head"]["kernel"], 1 / math.sqrt(64)),
        (attention["query"]["kernel"], 1 / math.sqrt(64)),
        (attention["key"]["kernel"], 1 / math.sqrt(64)),
        (attention["value"]["kernel"], 1 / math.sqrt(64)),
        (attention["out"]["kernel"], 1 / math.sqrt(96 * 6)),
        (mlp["up"]["kernel"], 1 / math.sqrt(64)),
        (mlp["down"]["kernel"], 1 / math.sqrt(128 * 6)),
    ]
    for values, std in expected:
        assert np.std(values) == pytest.approx(std, rel=0.05)
        assert np.mean(values) == pytest.approx(0, abs=0.05 * std)
    assert len({layer.tobytes() for layer in np.asarray(attention["query"]["kernel"])}) == 3
    n_constant = 0
    for path, values in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key in ("bias", "scale"):
            np.testing.assert_array_equal(values, float(path[-1].key == "scale"))
            n_constant += 1
    assert n_constant + len(expected) == len(jax.tree.leaves(params))


# --- Dropout. ---

LIT = {"vocab_size": 8, "n_layers": 1, "tied_embeddings": False, "final_norm": False}


@functools.cache
def dropping():
    """A model whose logits are its last activations, with dropout of 1/4 and 1/2."""
    model, params = small(
        **LIT, position="none", dropout_embedding=0.25, dropout_residual=0.5, dropout_attention=0.1
    )
    return model, jax.tree.map(jnp.zeros_like, params) | {"head": {"kernel": jnp.eye(8)}}


@functools.cache
def dropped_logits():
    model, _ = dropping()
    tokens = np.zeros((128, 12), np.int32)
    return jax.jit(lambda params, key: model.apply(params, tokens, dropout_key=key))


def test_embedding_dropout():
    _, params = dropping()
    lit = {**params, "embedding": {"tokens": jnp.ones((8, 8))}}
    logits = np.asarray(dropped_logits()(lit, jax.random.key(1)))
    np.testing.assert_allclose(np.unique(logits), [0, 1 / 0.75], rtol=1e-6)
    assert (logits == 0).mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("part", "projection"), [("attention", "out"), ("mlp", "down")])
def test_residual_dropout(part, projection):
    _, params = dropping()
    block = params["blocks"]["0"]
    writes = {**block[part][projection], "bias": jnp.ones((1, 8))}
    lit_block = {**block, part: {**block[part], projection: writes}}
    lit = {**params, "blocks": {"0": lit_block}}
    logits = np.asarray(dropped_logits()(lit, jax.random.key(1)))
    np.testing.assert_allclose(np.unique(logits), [0, 2], rtol=1e-6)
    assert (logits == 0).mean() == pytest.approx(0.5, abs=0.02)


def test_dropout_follows_its_key_and_needs_one():
    model, _ = dropping()
    params = random_params(model)
    first = dropped_logits()(params, jax.random.key(1))
    np.testing.assert_array_equal(first, dropped_logits()(params, jax.random.key(1)))
    assert (first != dropped_logits()(params, jax.random.key(2))).any()
    undropped, _ = small(**LIT, position="none")
    tokens = np.arange(8)[None]
    both = jax.jit(lambda p: (model.apply(p, tokens), undropped.apply(p, tokens)))
    np.testing.assert_array_equal(*both(params))


# --- Logits. ---


def test_vocabulary_padding_leaks_into_neither_loss_nor_gradient():
    padded, params = small(**PLAIN, vocab_multiple=16, n_layers=1)
    plain, _ = small(**PLAIN, n_layers=1)
    table = params["embedding"]["tokens"]
    assert table.shape == (16, 8)
    embedding = params["embedding"]

    @functools.partial(jax.jit, static_argnums=0)
    def loss_and_gradient(model, params):
        def loss(params):
            logits = model.apply(params, TOKENS)
            sums = cross_entropy_sums(logits, np.roll(TOKENS, 1), np.ones_like(TOKENS))
            return sums.cross_entropy + sums.z_loss

        return jax.value_and_grad(loss)(params)

    loss, gradient = loss_and_gradient(padded, params)
    cut = {**params, "embedding": {**embedding, "tokens": table[:12]}}
    expected_loss, expected_gradient = loss_and_gradient(plain, cut)
    assert loss == pytest.approx(float(expected_loss), rel=1e-6)
    np.testing.assert_array_equal(gradient["embedding"]["tokens"][12:], 0)
    gradient["embedding"]["tokens"] = gradient["embedding"]["tokens"][:12]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        gradient,
        expected_gradient,
    )


def test_soft_cap():
    plain, params = small()
    capped, _ = small(logit_soft_cap=1.5)
    raw, logits = jax.jit(lambda p: (plain.apply(p, TOKENS), capped.apply(p, TOKENS)))(params)
    assert abs(raw).max() > 2
    np.testing.assert_allclose(logits, 1.5 * np.tanh(np.asarray(raw) / 1.5), rtol=1e-5)


def test_gpt1_ends_in_its_last_blocks_norm():
    """Post-norm: outputs are normed by the block, and there is no norm after it."""
    model, params = small(**LIT, norm_position="post")
    assert "final_norm" not in params
    assert "final_norm" in small()[1]
    norm = params["blocks"]["0"]["mlp_norm"]
    params["blocks"]["0"]["mlp_norm"] = {
        "scale": jnp.ones_like(norm["scale"]),
        "bias": jnp.zeros_like(norm["bias"]),
    }
    params["head"] = {"kernel": jnp.eye(8)}
    x_TD = jax.jit(model.apply)(params, np.arange(8)[None])[0]
    np.testing.assert_allclose(x_TD.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(x_TD.std(-1), 1, atol=1e-3)


CPU_FORMS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "alibi": {"n_kv_heads": 1, "position": "alibi", "norm": "rmsnorm", "bias": False},
    "banded": {"layer_pattern": ("dense", "banded"), "window": 3, "position": "rotary"},
    "untied": {"tied_embeddings": False, "qk_norm": True, "activation": "swiglu"},
    "sinks": {
        "scores": ("soft_cap", "sinks"),
        "options": {"soft_cap": {"cap": 1.5}},
        "n_kv_heads": 2,
    },
}
WITH_SEGMENTS = ("alibi", "banded", "sinks")
"""Masks of segments meet biases, windows and other scores; the others differ in no mask."""


@pytest.mark.parametrize(
    ("name", "text"),
    covered(
        (tuple(CPU_FORMS), ("whole", "segments")),
        {(name, "segments" if name in WITH_SEGMENTS else "whole") for name in CPU_FORMS},
    ),
)
def test_the_cpu_form_of_products_has_the_plain_ones_loss_and_gradients(name, text):
    changes = CPU_FORMS[name]
    segments = np.repeat(SEGMENTS, len(TOKENS), axis=0) if text == "segments" else None
    targets = np.roll(TOKENS, -1, axis=1)

    def run(dtype, products):
        compute = ComputeConfig(
            dtype=dtype, products=products, attention="blockwise", attention_block=5, layers="scan"
        )
        model, params = small(compute, **changes)

        def loss(params):
            logits = model.apply(params, TOKENS, segments)
            return cross_entropy_sums(logits, targets, targets > 0).cross_entropy

        step = jax.jit(jax.value_and_grad(loss)).lower(params)
        return step.as_text(), step.compile()(params)

    plain_text, plain = run("float32", "plain")
    exact_text, exact = run("float32", "cpu")
    _, rounded = run("bfloat16", "cpu")
    assert plain_text != exact_text
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, exact, plain)
    error = optax.global_norm(jax.tree.map(jnp.subtract, rounded[1], plain[1]))
    assert 1e-5 < error / optax.global_norm(plain[1]) < 0.03


@pytest.mark.parametrize(("backend", "platform"), [("tpu", "tpu"), ("gpu", "cuda")])
def test_programs_of_accelerators_know_no_cpu_form(backend, platform):
    """Lowered for the accelerator, loss and gradient are the text that the plain forms give."""

    def lowered(products):
        compute = ComputeConfig(products=products, attention="blockwise", attention_block=4)
        model = make_gpt(ModelConfig(**SMALL), compute, backend=backend)
        params = jax.eval_shape(model.init, jax.random.key(0))

        def loss(params):
            logits = model.apply(params, TOKENS)
            return cross_entropy_sums(logits, TOKENS, jnp.ones(TOKENS.shape)).cross_entropy

        traced = jax.jit(jax.value_and_grad(loss)).trace(params)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert lowered("auto") == lowered("plain")
    assert lowered("auto") != lowered("cpu")


def test_threads_trace_one_at_a_time(monkeypatch):
    """flax's modules are not made for several threads; packs of a sweep trace in threads."""
    applied = [small(**(PLAIN | {"seq_len": length})) for length in (13, 14)]
    # Of sizes that nothing in this process was traced for.
    fresh = [make_gpt(ModelConfig(**{**SMALL, **PLAIN, "seq_len": n}), SCANNED) for n in (15, 16)]
    inside, most = [], []

    def slowly(function):
        def call(*inputs, **options):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            try:
                return function(*inputs, **options)
            finally:
                inside.pop()

        return call

    for name in ("init", "apply"):
        monkeypatch.setattr(gpt.Transformer, name, slowly(getattr(gpt.Transformer, name)))
    with ThreadPoolExecutor(4) as pool:
        traces = [pool.submit(jax.eval_shape, m.apply, params, TOKENS) for m, params in applied]
        traces += [pool.submit(model.param_axes) for model in fresh]
    assert all(trace.result() is not None for trace in traces)
    assert set(most) == {1}
    assert len(most) == 4
