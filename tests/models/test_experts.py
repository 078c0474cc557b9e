"""Mixture of experts against a loop over tokens; its losses; what is the same in any split."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import (
    ComputeConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    overrides,
)
from gpt_jax.cost.flops import (
    count_parameters,
    forward_flops_per_sequence,
    mlp_rows_per_token,
    parameter_shapes,
)
from gpt_jax.cost.state import state_bytes
from gpt_jax.data.batch import Batch
from gpt_jax.models import probes
from gpt_jax.models.decoding import apply_cached, decoding_params, init_cache
from gpt_jax.models.entry import ACTIVATIONS
from gpt_jax.models.experts import capacity_slots, choose
from gpt_jax.models.gpt import make_gpt
from gpt_jax.objectives.pretraining import LossWeights, batch_loss
from gpt_jax.objectives.routers import router_sums
from gpt_jax.optim.updates import make_optimizer
from gpt_jax.steps.program import make_steps

MODEL = ModelConfig(
    vocab_size=23,
    seq_len=12,
    n_layers=2,
    d_model=16,
    n_heads=2,
    ffn_size=20,
    n_experts=4,
    n_experts_per_token=2,
    init_std=0.3,
)
PLAIN = ComputeConfig(dtype="float32", attention="reference", products="plain", layers="scan")
TOKENS = np.random.default_rng(0).integers(0, 23, (3, 12))
VARIANTS = {
    "dropless": {},
    "capacity": {"expert_capacity_factor": 0.75},
    "one choice": {"n_experts_per_token": 1},
    "gated": {"activation": "swiglu", "bias": False},
}


def variant(name):
    return dataclasses.replace(MODEL, **VARIANTS[name])


@functools.cache
def params_of(name):
    return jax.jit(make_gpt(variant(name), PLAIN).init)(jax.random.key(0))


def loop(model, mlp, x_BTD):
    """The mixture one token at a time; mlp: the parameters of one layer."""
    y = np.zeros(x_BTD.shape, np.float32)
    logits = np.asarray(x_BTD @ mlp["router"]["kernel"])
    activation = ACTIVATIONS.find(model.activation).function
    for b, sequence in enumerate(x_BTD):
        taken = np.zeros(model.n_experts, int)
        for t, x in enumerate(sequence):
            p = np.exp(logits[b, t] - logits[b, t].max())
            p /= p.sum()
            best = np.argsort(-p, kind="stable")[: model.n_experts_per_token]
            total = p[best].sum() if len(best) > 1 else 1.0
            for e in best:
                taken[e] += 1
                if model.expert_capacity is not None and taken[e] > model.expert_capacity:
                    continue
                weights = jax.tree.map(lambda w, e=e: w[e], mlp["experts"])
                bias = {name: w.get("bias", 0.0) for name, w in weights.items()}
                h = x @ weights["up"]["kernel"] + bias["up"]
                if model.gated:
                    h = activation(x @ weights["gate"]["kernel"] + bias["gate"]) * h
                else:
                    h = activation(h)
                y[b, t] += p[e] / total * (h @ weights["down"]["kernel"] + bias["down"])
    return y


@pytest.mark.parametrize("name", VARIANTS)
def test_a_mixture_is_what_a_loop_over_tokens_computes(name):
    model, params = variant(name), params_of(name)
    gpt = make_gpt(model, PLAIN)
    seen = jax.jit(functools.partial(probes.activations, gpt))(params, TOKENS)
    mlp = jax.tree.map(lambda x: x[0], params["blocks"]["0"]["mlp"])
    layer = jax.tree.map(lambda x: x[0], params["blocks"]["0"])
    x = np.asarray(seen["embedding"] + seen["attention"][0], np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * layer["mlp_norm"]["scale"] + layer["mlp_norm"].get("bias", 0.0)
    np.testing.assert_allclose(seen["mlp"][0], loop(model, mlp, x), atol=2e-4)


FORMS = {
    "cpu": {"products": "cpu"},
    "cpu bfloat16": {"products": "cpu", "dtype": "bfloat16"},
    "unrolled": {"layers": "unroll"},
    "remat": {"remat": "full"},
    "blockwise": {"attention": "blockwise"},
}


@functools.cache
def graded(name, compute=PLAIN):
    """Gradient and sums of the plainest form, or of another one."""
    gpt = make_gpt(variant(name), compute)
    batch = Batch(TOKENS, np.roll(TOKENS, -1, 1), np.ones(TOKENS.shape, np.float32), None)
    weights = LossWeights(0.0, 0.01, 0.001)
    loss = jax.grad(lambda p: batch_loss(gpt, p, batch, weights), has_aux=True)
    return jax.jit(loss)(params_of(name))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["dropless", "capacity"])
def test_any_form_has_the_same_loss_and_gradient(name, form):
    want, sums = graded(name)
    got, other = graded(name, dataclasses.replace(PLAIN, **FORMS[form]))
    tolerance = 0.1 if "bfloat16" in form else 1e-3
    np.testing.assert_allclose(other.cross_entropy, sums.cross_entropy, rtol=tolerance)
    if "bfloat16" not in form:  # where choices are close, rounding may send a token elsewhere
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), got, want)
    router = want["blocks"]["0"]["mlp"]["router"]["kernel"]
    assert float(jnp.abs(router).max()) > 1e-4


def test_the_gradient_is_that_of_finite_differences():
    model, params = variant("dropless"), params_of("dropless")
    gpt = make_gpt(model, PLAIN)
    batch = Batch(TOKENS, np.roll(TOKENS, -1, 1), np.ones(TOKENS.shape, np.float32), None)
    loss = jax.jit(lambda p: batch_loss(gpt, p, batch)[0])
    gradient = jax.jit(jax.grad(lambda p: batch_loss(gpt, p, batch)[0]))(params)
    direction = jax.tree.map(
        lambda g: jnp.sin(jnp.arange(g.size, dtype=jnp.float32)).reshape(g.shape), gradient
    )
    step = 1e-4  # small enough that no token changes its experts
    moved = [jax.tree.map(lambda p, d, s=s: p + s * d, params, direction) for s in (step, -step)]
    difference = (float(loss(moved[0])) - float(loss(moved[1]))) / (2 * step)
    inner = sum(
        float(jnp.sum(g * d))
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    assert difference == pytest.approx(inner, rel=0.02, abs=0.5)


@pytest.mark.parametrize("name", ["dropless", "capacity"])
def test_no_token_sees_a_later_one(name):
    gpt = make_gpt(variant(name), PLAIN)
    apply = jax.jit(gpt.apply)
    before = apply(params_of(name), TOKENS)
    changed = TOKENS.copy()
    changed[:, 8:] = (changed[:, 8:] + 5) % 23
    after = apply(params_of(name), changed)
    np.testing.assert_allclose(after[:, :8], before[:, :8], atol=1e-6)
    assert np.abs(after[:, 8:] - before[:, 8:]).max() > 1e-3


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_decoding_computes_the_same(layers):
    gpt = make_gpt(variant("dropless"), dataclasses.replace(PLAIN, layers=layers))
    params = params_of("dropless")
    cache, found, step = init_cache(gpt, 3, 12), [], jax.jit(functools.partial(apply_cached, gpt))
    decoding = decoding_params(gpt, params)
    for begin, end in ((0, 7), (7, 8), (8, 12)):
        positions = np.broadcast_to(np.arange(begin, end), (3, end - begin))
        y, cache = step(decoding, TOKENS[:, begin:end], positions, cache)
        found.append(y)
    want = jax.jit(make_gpt(variant("dropless"), PLAIN).apply)(params, TOKENS)
    np.testing.assert_allclose(np.concatenate(found, axis=1), want, atol=1e-4)


def test_places_go_by_position():
    choices = jnp.asarray([[0, 1], [0, 2], [0, 1], [1, 0]])
    slots = capacity_slots(choices, n_experts=3, capacity=2)
    # Expert 0's places are 0 and 1, expert 1's 2 and 3, expert 2's 4 and 5; 6 is none.
    assert slots.slot_MK.tolist() == [[0, 2], [1, 4], [6, 3], [6, 6]]
    assert slots.choice_S.tolist() == [0, 2, 1, 5, 3, 8]


def test_gates():
    logits = jnp.log(jnp.asarray([0.1, 0.6, 0.3]))
    gates, experts = choose(logits, 2)
    assert experts.tolist() == [1, 2]
    np.testing.assert_allclose(gates, [2 / 3, 1 / 3], rtol=1e-5)
    gates, experts = choose(logits, 1)
    np.testing.assert_allclose(gates, [0.6], rtol=1e-5)


def test_router_losses_at_known_values():
    weights = jnp.ones((2, 4))
    even = jnp.zeros((1, 2, 4, 4))
    model = dataclasses.replace(MODEL, n_experts_per_token=4)
    sums = router_sums(model, even, weights)
    assert sums.load_balance == pytest.approx(8), "1 a token where all share evenly"
    assert sums.z_loss == pytest.approx(8 * np.log(4) ** 2)
    one = jnp.zeros((1, 2, 4, 4)).at[..., 2].set(50.0)
    sums = router_sums(dataclasses.replace(MODEL, n_experts_per_token=1), one, weights)
    assert sums.load_balance == pytest.approx(4 * 8), "E where one has all"
    # Tokens that do not count, as padding, weigh nothing.
    half = weights.at[1].set(0)
    assert router_sums(model, even, half).load_balance == pytest.approx(4)
    capped = dataclasses.replace(
        MODEL, n_experts_per_token=1, expert_capacity_factor=1.0, seq_len=4
    )
    assert capped.expert_capacity == 1
    assert router_sums(capped, one, weights).dropped == pytest.approx(6)


def test_any_split_into_microbatches_gives_the_same_gradient():
    config = Config(
        model=variant("capacity"),
        train=TrainConfig(batch_sequences=4, tokens=1000, router_load_balance_loss=0.1),
        compute=PLAIN,
    )
    tokens = np.concatenate([TOKENS, TOKENS[:1]])
    batch = Batch(tokens, np.roll(tokens, -1, 1), np.ones(tokens.shape, np.float32), None)
    gpt, params = make_gpt(config.model, PLAIN), params_of("capacity")
    parts = overrides.override(config, {"compute.microbatches": 2})
    (whole, sums), (split, split_sums) = (
        jax.jit(lambda p, b, c=c: make_steps(c, gpt).sum_gradients(p, b, None))(params, batch)
        for c in (config, parts)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), whole, split)
    np.testing.assert_allclose(sums.router, split_sums.router, rtol=1e-5)
    assert sums.router.dropped > 0


def test_every_optimizer_takes_experts():
    leaves = jax.tree.leaves(params_of("dropless"))
    for name in ("adamw", "muon", "adafactor", "lion", "sgd"):
        params = params_of("dropless")
        optimizer = make_optimizer(OptimizerConfig(name=name), params, 0.1, model=MODEL)
        state = jax.eval_shape(optimizer.init, params)
        updates, _ = jax.eval_shape(optimizer.update, params, state, params)
        assert jax.tree.map(lambda x: x.shape, updates) == jax.tree.map(lambda x: x.shape, params)
        kept = sum(x.size for x in jax.tree.leaves(state) if x.dtype == jnp.float32)
        closed = state_bytes(MODEL, OptimizerConfig(name=name)).optimizer / 4
        # Adafactor keeps a placeholder of one number for each matrix besides.
        assert closed <= kept <= closed + 2 * sum(max(1, x.size // 64) for x in leaves)


def test_muon_orthogonalises_each_expert_by_itself():
    params = params_of("dropless")
    optimizer = make_optimizer(OptimizerConfig(name="muon", weight_decay=0.0), params, 1.0)
    draw = np.random.default_rng(0)
    gradient = jax.tree.map(lambda p: draw.normal(size=p.shape).astype(np.float32), params)
    updates, _ = jax.jit(lambda g: optimizer.update(g, optimizer.init(params), params))(gradient)
    kernel = np.asarray(updates["blocks"]["0"]["mlp"]["experts"]["up"]["kernel"])[1, 2]
    singular = np.linalg.svd(kernel, compute_uv=False)
    assert singular.min() > 0.3 * singular.max()


# --- counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_counted_total_and_active(name):
    model = variant(name)
    shapes = parameter_shapes(model)
    tree = jax.eval_shape(make_gpt(model, PLAIN).init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {jax.tree_util.keystr(p, simple=True, separator="/"): x.shape for p, x in leaves}
    assert shapes == found
    counts, dense = (
        count_parameters(model),
        count_parameters(
            dataclasses.replace(
                model, n_experts=None, n_experts_per_token=2, expert_capacity_factor=None
            )
        ),
    )
    D, E, K, L = 16, 4, model.n_experts_per_token, 2
    router = L * D * E
    assert counts.n_params == sum(int(np.prod(s)) for s in shapes.values())
    assert counts.n_params == dense.n_params + (E - 1) * dense.mlp + router
    assert counts.n_params_active == dense.n_params + (K - 1) * dense.mlp + router
    kernels = L * (3 if model.gated else 2) * D * 20
    assert counts.n_params_matmul == dense.n_params_matmul + (K - 1) * kernels + router


def test_flops_are_of_the_rows_that_experts_compute():
    dense = dataclasses.replace(MODEL, n_experts=None)
    T, D, E, L, kernels = 12, 16, 4, 2, 2 * 2 * 16 * 20
    base = forward_flops_per_sequence(dense)
    router = 2 * T * L * D * E
    dropless = forward_flops_per_sequence(MODEL)
    assert dropless == base + 2 * T * kernels + router
    assert mlp_rows_per_token(MODEL) == 2
    capped = variant("capacity")
    assert capped.expert_capacity == 5  # ceil(0.75 x 2 x 12 / 4)
    places = E * 5
    assert forward_flops_per_sequence(capped) == base + 2 * (places - T) * kernels + router
    assert mlp_rows_per_token(capped) == places / T
    roomy = dataclasses.replace(MODEL, expert_capacity_factor=1.5)
    used = forward_flops_per_sequence(roomy, "exact_causal")
    assert used == forward_flops_per_sequence(MODEL, "exact_causal")
    assert forward_flops_per_sequence(roomy) > forward_flops_per_sequence(MODEL)
    active = count_parameters(MODEL).n_params_active
    assert forward_flops_per_sequence(MODEL, "6nd") == 2 * T * active


def test_mistakes():
    for changes, message in (
        ({"n_experts_per_token": 5}, "n_experts_per_token = 5 exceeds model.n_experts = 4"),
        ({"n_experts": None, "n_experts_per_token": 3}, "= 3 needs model.n_experts"),
        ({"n_experts": None, "expert_capacity_factor": 1.0}, "= 1.0 needs model.n_experts"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(MODEL, **changes)


def test_a_step_trains_them():
    config = Config(
        model=variant("capacity"),
        train=TrainConfig(batch_sequences=3, tokens=3 * 12 * 30),
        compute=PLAIN,
    )
    config = overrides.override(config, {"optimizer.learning_rate": 0.01})
    from gpt_jax.config.timetable import make_timetable
    from gpt_jax.steps.step import make_settings

    steps = make_steps(config, make_gpt(config.model, PLAIN))
    settings = make_settings(config, make_timetable(config))
    state = jax.jit(steps.init)(jax.random.key(0))
    batch = Batch(TOKENS, np.roll(TOKENS, -1, 1), np.ones(TOKENS.shape, np.float32), None)
    train, losses = jax.jit(steps.train), []
    for _ in range(30):
        state, metrics = train(state, batch, settings)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.5 * losses[0]
    columns = metrics.columns()
    assert 0.9 < float(columns["router_load_balance_loss"]) < 4
    assert 0 <= float(columns["dropped_choices"]) < 0.7
