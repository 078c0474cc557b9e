"""Counts against published totals, the real module, the real optimizer, and XLA's own count."""

import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxprs import product_flops

from gpt_jax.config import ComputeConfig, ModelConfig, OptimizerConfig
from gpt_jax.cost.flops import (
    count_parameters,
    forward_flops_per_sequence,
    parameter_shapes,
    training_flops,
    training_flops_per_sequence,
    training_flops_per_token,
)
from gpt_jax.cost.state import state_bytes
from gpt_jax.models.gpt import make_gpt
from gpt_jax.optim.updates import make_optimizer

SMALL = {"vocab_size": 83, "seq_len": 16, "n_layers": 2, "d_model": 24, "n_heads": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt1": {"norm_position": "post", "final_norm": False},
    "gpt3": {"layer_pattern": ("dense", "banded"), "window": 5},
    "grouped_query": {"n_kv_heads": 2, "qk_norm": True, "position": "rotary"},
    "multi_query_wide_heads": {"n_kv_heads": 1, "head_size": 10, "position": "alibi"},
    "gated_untied": {"activation": "swiglu", "ffn_size": 40, "tied_embeddings": False},
    "parallel_rmsnorm": {"parallel_block": True, "norm": "rmsnorm", "position": "none"},
    "padded_no_bias": {"vocab_multiple": 32, "bias": False, "position": "sinusoidal"},
    "sinks": {"scores": ("sinks", "soft_cap"), "n_kv_heads": 2},
    "padded_untied": {"vocab_multiple": 32, "tied_embeddings": False},
}


def variant(name: str) -> ModelConfig:
    return ModelConfig(**{**SMALL, **VARIANTS[name]})


def shapes_of(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x.shape for p, x in leaves}


# Parameters


@pytest.mark.parametrize("name", VARIANTS)
def test_the_tree_is_the_module_s(name: str) -> None:
    model = variant(name)
    params = jax.eval_shape(make_gpt(model).init, jax.random.key(0))
    assert parameter_shapes(model) == shapes_of(params)
    assert count_parameters(model).n_params_padded == sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.smoke
def test_parts_of_gpt2() -> None:
    counts = count_parameters(ModelConfig())
    D, L = 768, 12
    assert counts.n_params == 124_439_808
    assert counts.token_embedding == 50257 * D
    assert counts.position_embedding == 1024 * D
    assert counts.attention == L * (4 * D * D + 4 * D)
    assert counts.mlp == L * (8 * D * D + 5 * D)
    assert counts.norms == (2 * L + 1) * 2 * D
    assert counts.head == 0
    assert counts.n_params_matmul == 12 * L * D * D + 50257 * D
    # Kaplan et al. 2020, section 2.1: N is about 12 n_layer d_model^2.
    assert counts.n_params_non_embedding == pytest.approx(12 * L * D * D, rel=2e-3)


def test_padding_and_tying_the_vocabulary() -> None:
    tied, untied = ModelConfig(), ModelConfig(tied_embeddings=False)
    padded = ModelConfig(vocab_multiple=128)
    untied_padded = ModelConfig(vocab_multiple=128, tied_embeddings=False)
    table, padding = 50257 * 768, (50304 - 50257) * 768
    a, b = count_parameters(tied), count_parameters(untied)
    assert count_parameters(padded).n_params == a.n_params
    assert count_parameters(padded).n_params_padded == a.n_params + padding
    assert count_parameters(untied_padded).n_params_padded == b.n_params + 2 * padding
    assert b.n_params == a.n_params + table
    assert b.n_params_matmul == a.n_params_matmul
    assert b.n_params_non_embedding == a.n_params_non_embedding


# FLOPs against the program that runs


def dot_flops_of_hlo(text: str) -> int:
    """FLOPs of the products in an optimized HLO module without loops but those of scatters."""
    loops = [line for line in text.splitlines() if " while(" in line]
    assert all('/scatter-add"' in line for line in loops), loops
    shapes = {
        name: [int(n) for n in dims.split(",") if n]
        for name, dims in re.findall(r"(%[\w.\-]+) = \w+\[([\d,]*)\]", text)
    }
    total = 0
    for result, left, contracted in re.findall(
        r"(%[\w.\-]+) = \S+ dot\((%[\w.\-]+),.*?lhs_contracting_dims=\{([\d,]*)\}", text
    ):
        products = math.prod(shapes[left][int(i)] for i in contracted.split(","))
        total += 2 * math.prod(shapes[result]) * products
    return total


def reference_functions(model: ModelConfig, layers: str = "scan") -> tuple[Any, Any, Any, Any]:
    """Forward and gradient with the reference kernel, and abstract arguments of one sequence."""
    compute = ComputeConfig(attention="reference", dtype="float32", products="plain", layers=layers)
    gpt = make_gpt(model, compute)
    params = jax.eval_shape(gpt.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, model.seq_len), jnp.int32)

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.logsumexp(gpt.apply(params, tokens), axis=-1))

    return gpt.apply, jax.grad(loss), params, tokens


@pytest.mark.parametrize("name", VARIANTS)
def test_exact_is_every_product_of_the_traced_program(name: str) -> None:
    model = variant(name)
    forward, gradient, params, tokens = reference_functions(model)
    forward_jaxpr = jax.make_jaxpr(forward)(params, tokens).jaxpr
    gradient_jaxpr = jax.make_jaxpr(gradient)(params, tokens).jaxpr
    # The reference kernel computes the whole square of the one banded layer: T keys, not 5.
    beyond = 4 * 24 * 16 * (16 - 5) if model.window else 0
    assert product_flops(forward_jaxpr) == forward_flops_per_sequence(model) + beyond
    assert product_flops(gradient_jaxpr) == training_flops_per_sequence(model) + 3 * beyond


def test_exact_is_every_product_that_xla_executes() -> None:
    model = ModelConfig(**{**SMALL, "d_model": 64, "n_kv_heads": 2, **VARIANTS["gated_untied"]})
    forward, gradient, params, tokens = reference_functions(model, layers="unroll")
    compiled = jax.jit(forward).lower(params, tokens).compile()
    exact = forward_flops_per_sequence(model)
    assert dot_flops_of_hlo(compiled.as_text()) == exact
    # XLA's total has the elementwise operations too: a few for each number a layer computes.
    total, T, L = compiled.cost_analysis()["flops"], model.seq_len, model.n_layers
    numbers = L * T * (6 * model.d_model + 2 * model.d_ff + 2 * model.n_heads * T)
    assert exact < total < exact + 10 * numbers
    compiled = jax.jit(gradient).lower(params, tokens).compile()
    assert dot_flops_of_hlo(compiled.as_text()) == training_flops_per_sequence(model)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 3))
def test_exact_causal_counts_the_visible_pairs(seq_len: int, window: int, pairs: int) -> None:
    pattern = ("dense", "banded", "banded")
    model = ModelConfig(
        **{
            **SMALL,
            "seq_len": seq_len,
            "n_layers": 3 * pairs,
            "layer_pattern": pattern,
            "window": window,
        }
    )
    seen = sum(
        q - window < k <= q if kind == "banded" else k <= q
        for kind in pattern
        for q in range(seq_len)
        for k in range(seq_len)
    )
    kernels = 2 * seq_len * count_parameters(model).n_params_matmul
    products = 4 * model.n_heads * model.d_head * pairs * seen
    assert forward_flops_per_sequence(model, "exact_causal") == kernels + products


def test_exact_causal_leaves_out_padding() -> None:
    padded = ModelConfig(vocab_multiple=128)
    difference = forward_flops_per_sequence(padded) - forward_flops_per_sequence(ModelConfig())
    assert difference == 2 * 1024 * (50304 - 50257) * 768
    assert forward_flops_per_sequence(padded, "exact_causal") == forward_flops_per_sequence(
        ModelConfig(), "exact_causal"
    )


# FLOPs against the papers


@pytest.fixture
def papers(shared_data: Path) -> dict[str, Any]:
    folder = shared_data.parent / "papers"
    if not folder.is_dir():
        pytest.skip(f"no papers' tables at {folder}")
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def gpt3_shape(row: list[Any]) -> ModelConfig:
    """A row of GPT-3's Table 2.1, with the width and heads that Table D.1's counts decide for."""
    name, _, n_layers, d_model, n_heads, *_ = row
    n_heads = 16 if name == "XL" else n_heads
    d_model = 5120 if name == "13B" else d_model
    shape = {"vocab_size": 50257, "seq_len": 2048, "n_layers": n_layers}
    return ModelConfig(**shape, d_model=d_model, n_heads=n_heads)


def test_gpt3_table_d1(papers: dict[str, Any]) -> None:
    shapes = papers["gpt3"]["table_2_1"]["rows"]
    printed = papers["gpt3"]["table_D_1_training_compute"]["rows"]
    assert len(shapes) == len(printed) == 8
    for shape, (name, pf_days, flops, params_M, tokens_B) in zip(shapes, printed, strict=True):
        model = gpt3_shape(shape)
        n_params = count_parameters(model).n_params
        digit = 1 if params_M < 1000 else 10 if params_M < 100_000 else 100
        assert round(n_params / 1e6 / digit) * digit == params_M
        # The table multiplies the rounded parameters; ours differ by that rounding and no more.
        assert f"{6 * params_M * 1e6 * tokens_B * 1e9:.2e}" == f"{flops:.2e}"
        rounding = digit / 2 / params_M
        ours = training_flops(model, int(tokens_B * 1e9), "6nd")
        assert ours == pytest.approx(6 * params_M * 1e6 * tokens_B * 1e9, rel=rounding)
        assert (f"{ours:.2e}" == f"{flops:.2e}") == (name != "XL")
        assert ours / 8.64e19 == pytest.approx(pf_days, rel=5e-3)


def test_kaplan_table_1() -> None:
    """The rows of Table 1 with d_attn = d_model and d_ff = 4 d_model."""
    model = ModelConfig()
    D, L, T = 768, 12, 1024
    n_params = 2 * D * L * (2 * D + 4 * D)
    per_token = 2 * n_params + 2 * L * T * D
    assert forward_flops_per_sequence(model, "kaplan_table_1") == T * per_token
    n_non_embedding = count_parameters(model).n_params_non_embedding
    assert training_flops_per_token(model, "kaplan") == 6 * n_non_embedding
    assert training_flops(model, 10**9, "kaplan") == 6 * n_non_embedding * 10**9


@pytest.mark.parametrize(
    ("n_layers", "d_model", "n_heads", "n_params", "ratio"),
    [
        (10, 640, 10, 74e6, 1.03),
        (20, 1024, 16, 306e6, 1.10),
        (24, 1280, 10, 552e6, 1.08),
        (26, 1792, 14, 1143e6, 1.04),
        (28, 2048, 16, 1593e6, 1.03),
        (40, 3584, 28, 6796e6, 0.99),
    ],
)
def test_chinchilla_table_a4(
    n_layers: int, d_model: int, n_heads: int, n_params: float, ratio: float
) -> None:
    """Their FLOPs over 6 N D, N from Table A9, once embedding and head are left out."""
    shape = {"vocab_size": 32000, "seq_len": 2048, "n_layers": n_layers, "d_model": d_model}
    model = ModelConfig(**shape, n_heads=n_heads)
    flops = training_flops_per_token(model, "chinchilla")
    embedding_and_head = 3 * 2 * 2 * 32000 * d_model
    assert (flops - embedding_and_head) / (6 * n_params) == pytest.approx(ratio, abs=0.01)


def test_palm_is_6n_plus_12_lhqt() -> None:
    model = ModelConfig(n_heads=8, head_size=32)
    attention = 12 * model.n_layers * 8 * 32 * model.seq_len
    expected = 6 * count_parameters(model).n_params + attention
    assert training_flops_per_token(model, "palm") == expected


def test_unknown_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="'7nd' is unknown; allowed: exact, exact_causal, 6nd"):
        forward_flops_per_sequence(ModelConfig(), "7nd")  # type: ignore[arg-type]


# Memory


@pytest.mark.parametrize("name", ["adamw", "adam", "lion", "sgd", "muon", "adafactor"])
@pytest.mark.parametrize("shape", [{}, {"bias": False, "tied_embeddings": False}])
def test_state_is_the_optimizer_s(name: str, shape: dict[str, Any]) -> None:
    model = ModelConfig(vocab_size=500, seq_len=32, n_layers=2, d_model=256, n_heads=4, **shape)
    config = OptimizerConfig(name=name, ema_decay=0.99)
    params = jax.eval_shape(make_gpt(model).init, jax.random.key(0))
    state = jax.eval_shape(lambda p: make_optimizer(config, p, 0.1).init(p), params)
    stored = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    ours = state_bytes(model, config)
    # Counters and placeholders: under a thousand bytes.
    assert ours.optimizer <= stored < ours.optimizer + 1000
    assert ours.params == ours.gradients == ours.ema == 4 * count_parameters(model).n_params_padded
    assert ours.total == 3 * ours.params + ours.optimizer
    assert state_bytes(model, OptimizerConfig(name=name)).ema == 0


def test_nanogpt_s_count_of_its_gpt2() -> None:
    """By hand, of model.py's estimate_mfu: 6 N + 12 L H Q T, N without position embeddings; its
    README's GPT-2 (124M): 12 layers, width 768, vocabulary 50,257 padded to 50,304, no biases."""
    model = ModelConfig(
        vocab_size=50304, seq_len=1024, n_layers=12, d_model=768, n_heads=12, bias=False
    )
    n_counted = 50304 * 768 + 12 * (12 * 768**2 + 2 * 768) + 768
    assert count_parameters(model).n_params - 1024 * 768 == n_counted == 123_587_328
    per_token = 6 * n_counted + 12 * 12 * 12 * 64 * 1024
    assert training_flops_per_token(model, "nanogpt") == per_token == 854_770_176


def test_deepseek_s_model_scale() -> None:
    """arXiv:2401.02954, equation 2: M = 72 L D^2 + 12 L D T."""
    model = ModelConfig(vocab_size=100, seq_len=4096, n_layers=30, d_model=4096, n_heads=32)
    by_hand = 72 * 30 * 4096**2 + 12 * 30 * 4096 * 4096
    assert training_flops_per_token(model, "deepseek") == by_hand == 42_278_584_320


@pytest.mark.parametrize("convention", ["exact", "palm", "nanogpt", "deepseek"])
def test_a_banded_layer_meets_its_window(convention) -> None:
    """T 32,768 and a window of 512: half of the layers have 1/64 of the square. By hand:
    12 L N H T a token for dense layers, 12 L N H W for banded ones."""
    shape = {"vocab_size": 256, "seq_len": 32768, "n_layers": 2, "d_model": 64, "n_heads": 4}
    dense, banded, mixed = (
        training_flops_per_token(
            ModelConfig(**shape, layer_pattern=pattern, window=512), convention
        )
        for pattern in (("dense",), ("banded",), ("dense", "banded"))
    )
    assert dense - banded == 12 * 2 * 64 * (32768 - 512)
    assert dense - mixed == 12 * 64 * (32768 - 512)
    short = ModelConfig(**{**shape, "seq_len": 256}, layer_pattern=("banded",), window=512)
    same = ModelConfig(**{**shape, "seq_len": 256})
    assert forward_flops_per_sequence(short, convention) == forward_flops_per_sequence(
        same, convention
    )
