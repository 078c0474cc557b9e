"""The model under muP and CompleteP: how it starts, its multipliers, and equality at the base."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import ComputeConfig, Config, ModelConfig, OptimizerConfig, TrainConfig
from gpt_jax.config.timetable import make_timetable
from gpt_jax.data.batch import Batch
from gpt_jax.models import probes
from gpt_jax.models.attention import attend
from gpt_jax.models.decoding import apply_cached, decoding_params, init_cache
from gpt_jax.models.gpt import make_gpt
from gpt_jax.models.pattern import Pattern
from gpt_jax.models.products import precision
from gpt_jax.steps.program import make_steps
from gpt_jax.steps.step import make_settings

SIZES = {"vocab_size": 11, "seq_len": 8, "n_layers": 4, "d_model": 16, "n_heads": 2}
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 8))
SCANNED = ComputeConfig(dtype="float32", layers="scan", attention="reference")


def model(**changes) -> ModelConfig:
    return ModelConfig(**{**SIZES, **changes})


def mup(**changes) -> ModelConfig:
    """m = 4."""
    return model(**{"parametrization": "mup", "base_d_model": 4} | changes)


def completep(**changes) -> ModelConfig:
    """m = 4, l = 2."""
    base = {"parametrization": "completep", "base_d_model": 4, "base_n_layers": 2}
    return model(**base | changes)


def test_initial_standard_deviations_over_seeds():
    config = completep(init_std=0.3, tied_embeddings=False, d_model=64, base_d_model=16)
    init = jax.jit(make_gpt(config, SCANNED).init)
    trees = [init(jax.random.key(seed)) for seed in range(4)]
    params = jax.tree.map(lambda *x: np.stack(x), *trees)
    block = params["blocks"]["0"]
    inside, into_residual = 0.3 / 2, 0.3 / 2 / math.sqrt(2 * 2)
    for values, std in [
        (params["embedding"]["tokens"], 0.3),
        (params["embedding"]["positions"], 0.3),
        (params["head"]["kernel"], 0.3),
        (block["attention"]["query"]["kernel"], inside),
        (block["attention"]["value"]["kernel"], inside),
        (block["attention"]["out"]["kernel"], into_residual),
        (block["mlp"]["up"]["kernel"], inside),
        (block["mlp"]["down"]["kernel"], into_residual),
    ]:
        assert np.std(values) == pytest.approx(std, rel=0.04)


# --- The model. ---


def logits(config: ModelConfig, params, compute=SCANNED):
    return jax.jit(make_gpt(config, compute).apply)(params, TOKENS)


def random_params(config: ModelConfig):
    shapes = jax.eval_shape(make_gpt(config).init, jax.random.key(0))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.5, x.shape), jnp.float32), shapes)


@pytest.mark.parametrize("parallel", [False, True])
def test_multipliers_are_those_of_a_standard_model_with_smaller_weights(parallel):
    """Of the same parameters, 1 / m scales the head, 1 / l what enters the stream, and the divisor
    the queries."""
    config = completep(tied_embeddings=False, base_head_size=2, parallel_block=parallel)
    params = random_params(config)

    def scaled(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name == "head/kernel":
            return x / 4
        return x / 2 if any(part in name for part in ("/out/", "/down/", "/query/")) else x

    plain = model(tied_embeddings=False, parallel_block=parallel)
    expected = logits(plain, jax.tree_util.tree_map_with_path(scaled, params))
    np.testing.assert_allclose(logits(config, params), expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(logits(plain, params), expected, atol=0.1)


def test_tied_embeddings_scale_the_output_alone():
    config = mup(final_norm=False, n_layers=1)
    params = jax.tree.map(jnp.zeros_like, random_params(config))
    table = random_params(config)["embedding"]["tokens"]
    params["embedding"]["tokens"] = table  # blocks of zeros add nothing
    np.testing.assert_allclose(
        logits(config, params), table[TOKENS] @ table.T / 4, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("way", ["cached", "blockwise", "unrolled"])
def test_other_ways_of_computing_have_the_multipliers(way):
    config = completep(base_head_size=2, n_kv_heads=1)
    params = random_params(config)
    expected = logits(config, params)
    if way == "cached":
        gpt = make_gpt(config, SCANNED)
        positions = np.broadcast_to(np.arange(8), TOKENS.shape)
        cache = init_cache(gpt, 2, 8)
        got, _ = jax.jit(functools.partial(apply_cached, gpt))(
            decoding_params(gpt, params), TOKENS, positions, cache
        )
    elif way == "blockwise":
        got = logits(
            config, params, ComputeConfig(dtype="float32", attention="blockwise", attention_block=4)
        )
    else:
        got = logits(config, params, ComputeConfig(dtype="float32", layers="unroll", remat="full"))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_activations_are_what_the_model_computes():
    """Layers in their order, also where several make a group; and the stream adds up."""
    config = completep(layer_pattern=("dense", "banded"), window=3)
    gpt, params = make_gpt(config, SCANNED), random_params(config)
    seen = jax.jit(functools.partial(probes.activations, gpt))(params, TOKENS)
    assert seen["scores"].shape == (4, 2, 2, 8, 8)
    streams = np.concatenate([seen["embedding"][None], seen["stream"]])
    added = (seen["attention"] + seen["mlp"]) / 2
    np.testing.assert_allclose(np.diff(streams, axis=0), added, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(seen["logits"], logits(config, params), rtol=1e-4, atol=1e-4)


# --- The base. ---

BASES = {
    "gpt2": ({}, "adamw"),
    "llama": (
        {"norm": "rmsnorm", "bias": False, "position": "rotary", "activation": "swiglu"}
        | {"tied_embeddings": False, "n_kv_heads": 1, "qk_norm": True, "init_matrices": "fan_in"},
        "muon",
    ),
    "sinusoidal": ({"position": "sinusoidal", "parallel_block": True}, "sgd"),
}


@pytest.mark.parametrize("name", BASES)
def test_at_the_base_the_program_is_the_standard_one(name):
    """Init and training step are the same program, text for text: nothing is multiplied by 1."""
    changes, optimizer = BASES[name]
    base = {"base_d_model": 16, "base_n_layers": 4, "base_head_size": 8}

    def program(parametrization: dict) -> str:
        config = Config(
            model=model(**changes, **parametrization),
            optimizer=OptimizerConfig(name=optimizer),
            train=TrainConfig(tokens=800, batch_sequences=2),
        )
        gpt = make_gpt(config.model, SCANNED)
        steps = make_steps(config, gpt)
        settings = make_settings(config, make_timetable(config))
        state = jax.eval_shape(steps.init, jax.random.key(0))
        batch = Batch(TOKENS, TOKENS, np.ones(TOKENS.shape, np.float32), None)
        lowered = [
            jax.jit(steps.init).lower(jax.random.key(0)),
            jax.jit(steps.train).lower(state, batch, settings),
        ]
        return "".join(step.as_text() for step in lowered)

    standard = program({})
    assert program({"parametrization": "completep"} | base) == standard
    assert program({"parametrization": "completep"} | base | {"base_d_model": 8}) != standard


def test_cudnn_divides_scores_as_asked(monkeypatch):
    asked = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{asked}.check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(f"{asked}.check_compute_capability", lambda _: True)
    x = jnp.zeros((1, 64, 2, 64), jnp.bfloat16)
    how = precision("bfloat16", "auto", "gpu")

    def scale(divisor: float | None) -> str:
        run = jax.jit(lambda q: attend("cudnn", q, q, q, Pattern(divisor=divisor), how, 64))
        text = run.trace(x).lower(lowering_platforms=("cuda",)).as_text()
        return text.split("fmha_scale")[1].split(",")[0]

    assert "0.125" in scale(None)
    assert "0.03125" in scale(32.0)
