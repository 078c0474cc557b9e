"""Each method: what it trains, what it computes, and that nothing else changes."""

import functools
import itertools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import covered

from gpt_jax.adapt import adapted, difference, interceptors, low_rank, make_adaptation
from gpt_jax.config import AdaptConfig, ComputeConfig, Config, ModelConfig, OptimizerConfig
from gpt_jax.finetune.embeddings import special_tokens
from gpt_jax.models import probes
from gpt_jax.models.decoding import apply_cached, decoding_params, init_cache
from gpt_jax.models.gpt import make_gpt
from gpt_jax.models.layers import Projection
from gpt_jax.models.trees import flatten, join, split, unflatten
from gpt_jax.optim.roles import roles
from gpt_jax.optim.updates import make_optimizer

MODEL = ModelConfig(
    vocab_size=31,
    seq_len=16,
    n_layers=4,
    d_model=16,
    n_heads=4,
    n_kv_heads=2,
    ffn_size=20,
    layer_pattern=("dense", "dense"),
)
PLAIN = ComputeConfig(dtype="float32", attention="reference", products="plain", layers="scan")
TOKENS = np.arange(24).reshape(2, 12) % 31

METHODS = {
    "full": AdaptConfig(),
    "lora": AdaptConfig(method="lora", rank=3, targets=("query", "out", "up", "down")),
    "adalora": AdaptConfig(method="adalora", rank=2, targets=("query", "out", "up")),
    "adapter": AdaptConfig(method="adapter", size=5),
    "prefix": AdaptConfig(method="prefix", length=3),
    "prompt": AdaptConfig(method="prompt", length=3),
    "bitfit": AdaptConfig(method="bitfit"),
    "difference": AdaptConfig(method="difference", fraction=0.1),
    "last_layers": AdaptConfig(method="last_layers", layers=2),
    "pattern": AdaptConfig(method="pattern", train=(r"blocks/.*/mlp/.*", "final_norm/scale")),
}
D, F, N, K, H, P = 16, 20, 4, 2, 4, 3


@functools.cache
def base_params():
    return jax.jit(make_gpt(MODEL, PLAIN).init)(jax.random.key(0))


@functools.cache
def made(name, moved=False):
    """(adaptation, frozen, trained) on one base; moved: away from where training begins."""
    model = make_gpt(MODEL, PLAIN)
    adaptation = make_adaptation(METHODS[name], model)
    frozen, trained = jax.jit(adaptation.init)(jax.random.key(1), base_params())
    if moved:
        wave = lambda x: 0.1 * jnp.sin(1 + jnp.arange(x.size)).reshape(x.shape)  # noqa: E731
        trained = jax.tree.map(lambda x: x + wave(x), trained)
    return adaptation, frozen, trained


@functools.cache
def logits(name, moved=False):
    adaptation, frozen, trained = made(name, moved)
    return jax.jit(adaptation.model.apply)(adaptation.combine(frozen, trained), TOKENS)


@pytest.mark.parametrize(
    "name", ["lora", "adalora", "adapter", "bitfit", "difference", "last_layers", "pattern"]
)
def test_training_begins_at_the_base(name):
    np.testing.assert_allclose(logits(name), logits("full"), atol=1e-6)
    assert np.abs(logits(name, moved=True) - logits("full")).max() > 1e-3


COUNTS = {
    "full": None,
    # rank (inputs + outputs), 4 layers: query D + NH, out NH + D, up D + F, down F + D
    "lora": 4 * 3 * ((D + N * H) + (N * H + D) + (D + F) + (F + D)),
    "adalora": 4 * 3 * ((D + N * H + 1) + (N * H + D + 1) + (D + F + 1)),
    "adapter": 4 * 2 * (2 * D * 5 + 5 + D),
    "prefix": 4 * 2 * P * K * H,
    "prompt": P * D,
    "bitfit": 4 * (N * H + 2 * K * H + D + F + D + 2 * D) + D,
    "last_layers": None,
    "pattern": 4 * (2 * D * F + F + D) + D,
}


@pytest.mark.parametrize("name", [name for name, n in COUNTS.items() if n is not None])
def test_trained_parameters_are_counted(name):
    _, _, trained = made(name)
    assert sum(x.size for x in jax.tree.leaves(trained)) == COUNTS[name]


def test_difference_and_last_layers_count():
    n_all = sum(x.size for x in jax.tree.leaves(base_params()))
    assert sum(x.size for x in jax.tree.leaves(made("difference")[2])) == 2 * n_all
    blocks = sum(x.size for x in jax.tree.leaves(base_params()["blocks"]))
    trained = made("last_layers")[2]
    assert sum(x.size for x in jax.tree.leaves(trained)) == blocks // 2 + 2 * D


def plain(tree):
    return {path: np.asarray(x) for path, x in flatten(tree).items()}


@pytest.mark.parametrize(
    "name", ["lora", "adalora", "bitfit", "difference", "last_layers", "pattern"]
)
def test_merged_parameters_are_a_plain_model_of_the_same_logits(name):
    adaptation, frozen, trained = made(name, moved=True)
    params = adaptation.merge(adaptation.combine(frozen, trained))
    base = base_params()
    assert flatten(params).keys() == flatten(base).keys()
    again = jax.jit(adaptation.model.apply)(params, TOKENS)
    np.testing.assert_allclose(again, logits(name, moved=True), atol=2e-5)
    changed = {p for p, x in plain(params).items() if np.abs(x - plain(base)[p]).max() > 0}
    assert changed
    if name in ("lora", "adalora"):
        assert {path.split("/")[-2] for path in changed} == set(METHODS[name].targets)


@pytest.mark.parametrize("name", ["adapter", "prefix", "prompt"])
def test_what_no_plain_model_computes_is_not_merged(name):
    adaptation, frozen, trained = made(name)
    with pytest.raises(ValueError, match=f"adapt.method = {name} .* cannot be merged"):
        adaptation.merge(adaptation.combine(frozen, trained))


@pytest.mark.parametrize(
    ("name", "layers"),
    covered(
        (("lora", "adalora", "adapter", "prefix", "prompt"), ("scan", "unroll")),
        # Prefixes have one cache for all layers, or one each: both.
        {
            *(("lora", "scan"), ("adalora", "unroll"), ("adapter", "scan")),
            *(("prefix", "scan"), ("prefix", "unroll"), ("prompt", "unroll")),
        },
    ),
)
def test_decoding_with_a_cache_computes_the_same(name, layers):
    adaptation, frozen, trained = made(name, moved=True)
    compute = ComputeConfig(dtype="float32", attention="reference", products="plain", layers=layers)
    model = adapted(make_gpt(MODEL, compute), METHODS[name])
    params = decoding_params(model, adaptation.combine(frozen, trained))
    step = jax.jit(functools.partial(apply_cached, model))
    cache, found = init_cache(model, 2, 12), []
    for begin, end in ((0, 5), (5, 6), (6, 12)):
        positions = np.broadcast_to(np.arange(begin, end), (2, end - begin))
        y, cache = step(params, TOKENS[:, begin:end], positions, cache)
        found.append(y)
    np.testing.assert_allclose(np.concatenate(found, axis=1), logits(name, moved=True), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "products", "attention"),
    covered(
        (("lora", "adapter", "prefix"), ("plain", "cpu"), ("blockwise", "reference")),
        {  # every two of them meet
            *(("lora", "cpu", "blockwise"), ("lora", "plain", "reference")),
            *(("adapter", "plain", "blockwise"), ("adapter", "cpu", "reference")),
            *(("prefix", "cpu", "blockwise"), ("prefix", "plain", "reference")),
        },
    ),
)
def test_any_kernel_and_form_of_products(name, attention, products):
    adaptation, frozen, trained = made(name, moved=True)
    compute = ComputeConfig(
        dtype="float32", attention=attention, products=products, layers="unroll", remat="full"
    )
    params = adaptation.combine(frozen, trained)
    found = jax.jit(adapted(make_gpt(MODEL, compute), METHODS[name]).apply)(params, TOKENS)
    np.testing.assert_allclose(found, logits(name, moved=True), atol=2e-5)


def products(function, argument):
    """Shapes of the matrix products that are left in the compiled program."""
    text = jax.jit(function).lower(argument).compile().as_text()
    found = re.findall(r"= \w+\[([\d,]*)\]\S* dot\(", text)
    return {tuple(map(int, shape.split(","))) for shape in found if shape}


def test_lora_makes_no_gradient_of_a_kernel():
    adaptation, frozen, trained = made("lora", moved=True)

    def loss(trained):
        y = adaptation.model.apply(adaptation.combine(frozen, trained), TOKENS)
        return jnp.mean(jnp.square(y))

    dense = jax.jit(
        jax.grad(lambda params: jnp.mean(jnp.square(adaptation.model.apply(params, TOKENS))))
    )
    of_kernel_size = {(16, 20), (20, 16)}
    assert products(dense, base_params()) & of_kernel_size
    assert not products(jax.grad(loss), trained) & of_kernel_size
    gradient = jax.jit(jax.grad(loss))(trained)
    assert flatten(gradient).keys() == flatten(trained).keys()
    # By the chain rule from the dense gradient: dA = scale dW B', dB = scale A' dW.
    merged = adaptation.merge(adaptation.combine(frozen, trained))
    of_kernel = dense(merged)["blocks"]["0"]["mlp"]["up"]["kernel"]
    factors = trained["blocks"]["0"]["mlp"]["up"]
    scale = METHODS["lora"].alpha / METHODS["lora"].rank
    expected = {
        "lora_a": scale * jnp.einsum("gio,gro->gir", of_kernel, factors["lora_b"]),
        "lora_b": scale * jnp.einsum("gir,gio->gro", factors["lora_a"], of_kernel),
    }
    for leaf, value in expected.items():
        found = gradient["blocks"]["0"]["mlp"]["up"][leaf]
        np.testing.assert_allclose(found, value, atol=1e-5)


def test_dropout_is_of_what_the_low_rank_term_reads_while_training():
    """An identity as both factors: the term is what was left of x."""
    config = AdaptConfig(method="lora", rank=2, dropout=0.25)
    model = make_gpt(MODEL, PLAIN)
    frozen, _ = jax.eval_shape(
        make_adaptation(config, model).init, jax.random.key(0), base_params()
    )
    assert flatten(frozen)["blocks/0/attention/query/lora_dropout"].shape == (2,)
    how = model.execution.how
    layer = Projection((D,), (D,), ("embed",), ("mlp",), 0.02, False, how)
    stored = {"kernel": jnp.zeros((D, D)), "lora_a": jnp.eye(D), "lora_b": jnp.eye(D)}
    stored |= {"lora_scale": jnp.asarray(2.0), "lora_dropout": jnp.asarray(0.25)}
    ones = jnp.ones((500, D))
    with nn.intercept_methods(interceptors.low_rank):
        plain_y = layer.apply({"params": stored}, ones)
        y = np.asarray(layer.apply({"params": stored}, ones, rngs={"dropout": jax.random.key(0)}))
    np.testing.assert_array_equal(plain_y, 2 * ones)
    assert set(np.unique(y.round(5))) == {0.0, np.float32(2 / 0.75).round(5)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.02)


def test_last_layers_have_the_whole_models_gradient():
    adaptation, frozen, trained = made("last_layers")

    def loss(params):
        return jnp.mean(jnp.square(adaptation.model.apply(params, TOKENS)))

    small = jax.jit(jax.grad(lambda t: loss(adaptation.combine(frozen, t))))(trained)
    whole = jax.jit(jax.grad(loss))(base_params())
    for path, x in flatten(small).items():
        expected = flatten(whole)[path]
        expected = expected[-1:] if path.startswith("blocks/") else expected
        np.testing.assert_allclose(x, expected, atol=1e-6)


def test_an_adapter_is_a_bottleneck_with_a_skip():
    adaptation, frozen, trained = made("adapter", moved=True)
    model = adaptation.model
    params = adaptation.combine(frozen, trained)
    ours = jax.jit(functools.partial(probes.activations, model))(params, TOKENS)
    # The first layer's attention sees the same as without adapters.
    before = jax.jit(functools.partial(probes.activations, model))(frozen, TOKENS)["attention"][0]
    adapter = jax.tree.map(lambda x: x[0], trained["blocks"]["0"]["attention_adapter"])
    h = jax.nn.gelu(before @ adapter["down"]["kernel"] + adapter["down"]["bias"])
    expected = before + h @ adapter["up"]["kernel"] + adapter["up"]["bias"]
    np.testing.assert_allclose(ours["attention"][0], expected, atol=1e-5)
    assert np.abs(expected - before).max() > 1e-3


def test_a_prompt_takes_the_place_of_the_first_tokens():
    adaptation, frozen, trained = made("prompt", moved=True)
    model, params = adaptation.model, adaptation.combine(frozen, trained)
    apply = jax.jit(model.apply)
    others = TOKENS.copy()
    others[:, :P] = 7
    np.testing.assert_array_equal(apply(params, TOKENS), apply(params, others))
    others[:, P] += 1
    assert np.abs(apply(params, TOKENS) - apply(params, others)).max() > 1e-3
    rows = jnp.broadcast_to(trained["embedding"]["prompt"], (2, P, D))
    given = jax.jit(lambda p, t, x: model.apply(p, t, prefix_BPD=x))(frozen, TOKENS, rows)
    np.testing.assert_array_equal(apply(params, TOKENS), given)


def test_special_tokens_are_rows_beyond_the_vocabulary():
    model, base = make_gpt(MODEL, PLAIN).intercepted(special_tokens), base_params()
    special = jax.random.normal(jax.random.key(2), (2, D))
    params = join(base, {"embedding": {"special": special}})
    tokens = TOKENS.copy()
    tokens[:, 4] = 32
    grown = unflatten(flatten(base))
    table = base["embedding"]["tokens"]
    grown["embedding"]["tokens"] = table.at[5].set(special[1])
    as_five = tokens.copy()
    as_five[:, 4] = 5
    assert not (TOKENS == 5)[:, :4].any()
    ours = jax.jit(lambda p: model.apply(p, tokens, logits=False))(params)
    theirs = jax.jit(lambda p: model.apply(p, as_five, logits=False))(grown)
    np.testing.assert_allclose(ours[0, :5], theirs[0, :5], atol=1e-6)
    assert jax.jit(model.apply)(params, tokens).shape[-1] == 31


# --- AdaLoRA ------------------------------------------------------------------------------------


def test_the_budget_falls_with_a_cube_to_exactly_its_target():
    config = AdaptConfig(method="adalora", rank=4, budget_warmup=0.2, budget_final=0.3)
    left = [int(low_rank.budget(config, 10, i, 100)) for i in range(100)]
    assert left[:19] == [60] * 19
    assert left[69:] == [40] * 31
    assert all(a >= b for a, b in itertools.pairwise(left))
    assert left[44] == round(40 + 20 * (1 - 25 / 50) ** 3)


def test_the_least_important_values_are_zero_and_the_others_are_trained():
    adaptation, _, trained = made("adalora", moved=True)
    config, n_steps = METHODS["adalora"], 20
    optimizer = adaptation.wrap(
        make_optimizer(OptimizerConfig(weight_decay=0.0), trained, 0.01), n_steps
    )
    state = optimizer.init(trained)
    # One matrix's values matter: its gradients are a hundred times the others'.
    loud = "blocks/1/mlp/up/lora_lambda"

    def gradients(tree):
        flat = flatten(tree)
        return unflatten(
            {p: (100.0 if p == loud else 1.0) * jnp.ones_like(x) for p, x in flat.items()}
        )

    step = jax.jit(optimizer.update)
    for _ in range(n_steps):
        updates, state = step(gradients(trained), state, trained)
        trained = jax.tree.map(jnp.add, trained, updates)
    values = {p: x for p, x in flatten(trained).items() if p.endswith("lora_lambda")}
    n_matrices = sum(len(x) for x in values.values())
    left = sum(int(jnp.sum(x != 0)) for x in values.values())
    assert n_matrices == 3 * 4
    assert left == config.rank * n_matrices
    assert jnp.all(values[loud] != 0)


def test_orthogonality_is_zero_for_orthonormal_factors():
    rows = jnp.eye(3, 8)[None]
    tree = {"m": {"lora_a": rows.swapaxes(1, 2), "lora_b": rows}}
    assert low_rank.orthogonality(tree) == pytest.approx(0)
    doubled = jax.tree.map(lambda x: 2 * x, tree)
    assert low_rank.orthogonality(doubled) == pytest.approx(2 * 3 * 3**2)


# --- difference pruning -------------------------------------------------------------------------


def test_the_evaluated_difference_is_as_sparse_as_asked():
    adaptation, frozen, trained = made("difference", moved=True)
    params = flatten(adaptation.combine(frozen, trained))
    base = flatten(frozen)
    changed = sum(int(jnp.sum(params[p] != base[p])) for p in base)
    n_all = sum(x.size for x in base.values())
    assert changed == pytest.approx(0.1 * n_all, rel=0.02)


def test_gates_are_drawn_with_a_key_and_are_hard_concrete():
    n = 20_000
    base = {"x": jnp.zeros(n)}
    for log_odds in (-1.0, 0.0, 2.0):
        trained = {"x/difference": jnp.ones(n), "x/gate": jnp.full(n, log_odds)}
        z = difference.applied(base, trained, 1.0, jax.random.key(0))["x"]
        assert z.min() == 0
        assert z.max() == 1
        open_share = float(jnp.mean(z > 0))
        expected = float(difference.expected_share(unflatten(trained)))
        assert open_share == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(n))
        assert expected == pytest.approx(1 / (1 + math.exp(-log_odds)))


# --- trees and rules ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_trained_parameter_has_a_role_and_axes(name):
    adaptation, frozen, trained = made(name)
    roles(trained)
    combined = adaptation.combine(frozen, trained)
    named = adaptation.axes(adaptation.model.param_axes())
    for tree, axes in zip((frozen, trained, combined), named, strict=True):
        assert flatten(tree).keys() == flatten(axes).keys()
        for path, x in flatten(tree).items():
            assert len(flatten(axes)[path]) == x.ndim, path


def test_trees():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten(flatten(tree)) == tree
    rest, chosen = split(tree, lambda path: "c" in path)
    assert (rest, chosen) == ({"a": {"b": 1}, "e": 3}, {"a": {"c": {"d": 2}}})
    assert join(rest, chosen) == tree


def test_mistakes():
    model = make_gpt(ModelConfig(**{**MODEL.__dict__, "bias": False}), PLAIN)
    base = jax.eval_shape(model.init, jax.random.key(0))
    for config, message in (
        (AdaptConfig(method="bitfit"), "adapt.method = bitfit trains nothing here: it has no bias"),
        (AdaptConfig(method="lora", targets=("gate",)), "adapt.targets = gate: the model has none"),
        (AdaptConfig(method="pattern", train=("x",)), "no parameter matches adapt.train = x; they"),
        (AdaptConfig(method="last_layers", layers=3), "adapt.layers = 3; allowed: a multiple of"),
    ):
        adaptation = make_adaptation(config, model)
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(adaptation.init, jax.random.key(0), base)
    for options, message in (
        ({"method": "pattern"}, "adapt.method = pattern needs adapt.train"),
        ({"method": "prefix", "dropout": 0.1}, r"adapt\.dropout is for adapt\.method = lora or"),
        ({"train": ("x",)}, "adapt.train is for adapt.method = pattern"),
        ({"method": "adalora", "initial_rank": 4}, "adapt.initial_rank = 4 is below adapt.rank"),
    ):
        with pytest.raises(ValueError, match=message):
            AdaptConfig(**options)
    with pytest.raises(ValueError, match=r"adapt\.method = prompt stands before examples"):
        Config(adapt=AdaptConfig(method="prompt"))
