"""Schedules at exact points, roles and decay, and every update rule against an independent form."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.config import Config, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from gpt_jax.config.timetable import make_timetable
from gpt_jax.models.gpt import make_gpt
from gpt_jax.optim.entry import Hyperparameters
from gpt_jax.optim.roles import decay_mask, roles
from gpt_jax.optim.schedule import learning_rate_schedule, schedule_fraction
from gpt_jax.optim.updates import make_optimizer

NAMES = ("adamw", "adam", "adafactor", "lion", "muon", "sgd")
LEARNING_RATE = {"adamw": 0.1, "adam": 0.1, "adafactor": 0.3, "lion": 0.05, "muon": 0.3, "sgd": 0.1}


def config(*, seq_len: int = 10, tokens: int, batch: int = 1, **schedule) -> Config:
    return Config(
        model=ModelConfig(seq_len=seq_len),
        train=TrainConfig(tokens=tokens, batch_sequences=batch),
        optimizer=OptimizerConfig(learning_rate=2.0),
        schedule=ScheduleConfig(**schedule),
    )


def fractions(config: Config) -> np.ndarray:
    """The schedule of every step."""
    timetable = make_timetable(config)
    return np.asarray(schedule_fraction(config, timetable)(jnp.arange(timetable.n_steps)))


def params(n_layers: int = 2, seed: int = 0) -> dict:
    """A parameter tree with every kind of leaf: width 6, 2 heads of 4, 5 hidden, 7 tokens."""
    shapes = {
        "embedding": {"tokens": (7, 6), "positions": (3, 6)},
        "blocks": {
            "0": {
                "attention_norm": {"scale": (n_layers, 6), "bias": (n_layers, 6)},
                "attention": {
                    "query": {"kernel": (n_layers, 6, 2, 4), "bias": (n_layers, 2, 4)},
                    "out": {"kernel": (n_layers, 2, 4, 6), "bias": (n_layers, 6)},
                    "query_norm": {"scale": (n_layers, 4)},
                },
                "mlp": {
                    "up": {"kernel": (n_layers, 6, 5), "bias": (n_layers, 5)},
                    "down": {"kernel": (n_layers, 5, 6), "bias": (n_layers, 6)},
                },
            }
        },
        "final_norm": {"scale": (6,), "bias": (6,)},
        "head": {"kernel": (6, 7)},
    }
    return normal(shapes, seed)


def few_params(seed: int = 0) -> dict:
    """A leaf for each branch of an update rule: these compile quickly."""
    attention = {"query": {"kernel": (2, 6, 2, 4), "bias": (2, 2, 4)}}
    return normal(
        {"embedding": {"tokens": (7, 6)}, "blocks": {"0": {"attention": attention}}}, seed
    )


def normal(shapes: dict, seed: int) -> dict:
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def one_update(optimizer_config: OptimizerConfig, tree: dict, grads: dict, rate: float = 1.0):
    def update(tree, grads):
        optimizer = make_optimizer(optimizer_config, tree, learning_rate=rate)
        return optimizer.update(grads, optimizer.init(tree), tree)[0]

    return jax.jit(update)(tree, grads)


def by_path(tree: dict) -> dict:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


# --- schedule -----------------------------------------------------------------------------------


@pytest.mark.smoke
def test_warmup_is_linear_and_starts_above_zero():
    rates = fractions(config(tokens=100, name="constant", warmup_tokens=40))
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1], rtol=1e-6)


def test_cosine_ends_on_the_last_step():
    rates = fractions(config(tokens=100, name="cosine", warmup_tokens=20, final_fraction=0.1))
    expected = [0.5] + [0.1 + 0.45 * (1 + math.cos(math.pi * k / 8)) for k in range(9)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_linear_stays_at_its_end_after_decay_tokens():
    rates = fractions(config(tokens=60, name="linear", decay_tokens=40, final_fraction=0.2))
    np.testing.assert_allclose(rates, [0.8, 0.6, 0.4, 0.2, 0.2, 0.2], rtol=1e-5)


def test_inverse_sqrt():
    rates = fractions(config(tokens=160, name="inverse_sqrt", warmup_tokens=40, final_fraction=0.6))
    assert rates[3] == pytest.approx(1)
    assert rates[8] == pytest.approx(math.sqrt(4 / 9))
    assert rates[15] == pytest.approx(0.6)  # 0.5 without the floor
    unwarmed = fractions(config(tokens=160, name="inverse_sqrt"))
    np.testing.assert_allclose(unwarmed, 1 / np.sqrt(np.arange(1, 17)), rtol=1e-6)


@pytest.mark.parametrize(
    ("cooldown", "expected"),
    [("linear", [1, 1, 0.75, 0.5, 0.25, 0]), ("sqrt", [1, 1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0])],
)
def test_wsd(cooldown, expected):
    rates = fractions(config(tokens=60, name="wsd", cooldown_tokens=40, cooldown=cooldown))
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_wsd_without_cooldown_stays():
    np.testing.assert_array_equal(fractions(config(tokens=30, name="wsd")), [1, 1, 1])


def test_gpt3_schedule_over_300_billion_tokens_with_a_ramp():
    """GPT-3 175B: 375M warmup, 32k to 3.2M tokens over 12B, cosine to 10% at 260B of 300B."""
    gpt3 = Config(
        model=ModelConfig(seq_len=2048),
        train=TrainConfig(
            tokens=300_000_000_000,
            batch_sequences=1568,
            ramp_from_sequences=16,
            ramp_tokens=12_000_000_000,
        ),
        optimizer=OptimizerConfig(learning_rate=0.6e-4),
        schedule=ScheduleConfig(
            warmup_tokens=375_000_000, decay_tokens=260_000_000_000, final_fraction=0.1
        ),
    )
    timetable = make_timetable(gpt3)
    rate = jax.jit(learning_rate_schedule(gpt3, timetable))

    def exact(step: int) -> float:
        tokens = timetable.tokens_before(step + 1)
        if tokens < 375e6:
            return 0.6e-4 * tokens / 375e6
        progress = min(1.0, (tokens - 375e6) / (260e9 - 375e6))
        return 0.6e-4 * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))

    stages = [stage.first_step for stage in timetable.stages]
    assert len(stages) > 10
    done_at_260b = timetable.step_after_tokens(260e9)
    borders = [*stages, timetable.step_after_tokens(375e6), done_at_260b, timetable.n_steps - 1]
    for step in sorted({max(0, b + d) for b in borders for d in (-2, -1, 0, 1)}):
        # A step of the 260B schedule changes the rate by 1e-5 of itself: resolved everywhere.
        assert float(rate(jnp.int32(step))) == pytest.approx(exact(step), rel=5e-6), step
    assert float(rate(done_at_260b)) == pytest.approx(0.6e-5, rel=1e-6)


@settings(max_examples=8, deadline=None)
@given(
    start=st.integers(1, 8),
    factor=st.integers(2, 6),
    ramp=st.integers(1, 900),
    warmup=st.integers(0, 500),
    tokens=st.integers(1000, 5000),
)
def test_linear_schedule_is_a_function_of_tokens_seen(start, factor, ramp, warmup, tokens):
    cfg = Config(
        model=ModelConfig(seq_len=3),
        train=TrainConfig(
            tokens=tokens,
            batch_sequences=start * factor,
            ramp_from_sequences=start,
            ramp_tokens=ramp,
        ),
        schedule=ScheduleConfig(name="linear", warmup_tokens=warmup),
    )
    timetable = make_timetable(cfg)
    steps = np.linspace(0, timetable.n_steps - 1, 64).astype(int)
    seen = np.array([timetable.tokens_before(int(k) + 1) for k in steps])
    warm = np.minimum(1, seen / warmup) if warmup else 1
    expected = warm * (1 - np.clip((seen - warmup) / (tokens - warmup), 0, 1))
    got = schedule_fraction(cfg, timetable)(steps)
    np.testing.assert_allclose(got, expected, atol=2e-6)


# --- roles and decay ----------------------------------------------------------------------------


@pytest.mark.smoke
def test_every_parameter_has_its_role():
    found = by_path(roles(params()))
    assert found["embedding/tokens"] == "embedding"
    assert found["embedding/positions"] == "position"
    assert found["head/kernel"] == "head"
    for path, role in found.items():
        if path.endswith(("bias", "scale")):
            assert role == ("bias" if path.endswith("bias") else "gain")
        elif path.startswith("blocks"):
            assert role == "matrix"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "rmsnorm", "bias": False, "activation": "swiglu", "tied_embeddings": False},
        {"qk_norm": True, "n_kv_heads": 1, "layer_pattern": ("dense", "banded"), "window": 4},
        {"norm_position": "post", "final_norm": False, "position": "rotary"},
    ],
)
def test_the_model_has_no_parameter_without_a_rule(options):
    model = make_gpt(ModelConfig(vocab_size=9, d_model=8, n_heads=2, n_layers=2, **options))
    tree = jax.eval_shape(model.init, jax.random.key(0))
    for path, role in by_path(roles(tree)).items():
        assert (role == "matrix") == (path.startswith("blocks") and path.endswith("kernel"))


@pytest.mark.parametrize("path", ["adapter", "blocks/0/attention/router/kernel", "head/kernel/low"])
def test_uncovered_parameter_is_named(path):
    tree = jnp.zeros(3)
    for key in reversed(path.split("/")):
        tree = {key: tree}
    with pytest.raises(ValueError, match=f"parameter {path} must match exactly one"):
        roles(tree)


@pytest.mark.parametrize(
    ("name", "decay"),
    [("adamw", "matrices"), ("adamw", "all"), *((name, "no_bias_or_gain") for name in NAMES)],
)
def test_decay_touches_exactly_its_parameters(name, decay):
    """With zero gradients only decay moves a parameter: by -rate x decay x value if decoupled."""
    tree = params() if decay == "matrices" else few_params()
    cfg = OptimizerConfig(name=name, decay=decay, weight_decay=0.5)
    updates = by_path(one_update(cfg, tree, jax.tree.map(jnp.zeros_like, tree), rate=0.1))
    for path, value in by_path(tree).items():
        kernel = path.endswith("kernel")
        embedding = path.startswith("embedding")
        decays = decay == "all" or kernel or (embedding and decay == "no_bias_or_gain")
        assert by_path(decay_mask(tree, decay))[path] == decays
        # adam's decay is in the gradient, and its first step is the gradient's sign.
        step = np.sign(value) if name == "adam" else 0.5 * value
        expected = -0.1 * step * decays
        np.testing.assert_allclose(updates[path], expected, rtol=1e-4, atol=1e-9, err_msg=path)


# --- update rules -------------------------------------------------------------------------------


@pytest.mark.smoke
def test_adamw_equals_the_written_out_algorithm():
    """Algorithm 2 of arXiv:1711.05101, with the gradients clipped to a global norm first."""
    b1, b2, epsilon, decay, clip = 0.8, 0.9, 1e-3, 0.2, 0.7
    cfg = OptimizerConfig(
        b1=b1, b2=b2, epsilon=epsilon, weight_decay=decay, clip_norm=clip, decay="no_bias_or_gain"
    )
    tree = ours = few_params()
    state = make_optimizer(cfg, tree, learning_rate=0.0).init(tree)
    update = jax.jit(lambda rate, *args: make_optimizer(cfg, tree, rate).update(*args))
    theirs = {k: np.asarray(v, np.float64) for k, v in by_path(tree).items()}
    first = {k: np.zeros_like(v) for k, v in theirs.items()}
    second = {k: np.zeros_like(v) for k, v in theirs.items()}
    for t, rate in enumerate([0.1, 0.05, 0.2], start=1):
        grads = few_params(seed=t)
        updates, state = update(rate, grads, state, ours)
        ours = optax.apply_updates(ours, updates)
        flat = {k: np.asarray(v, np.float64) for k, v in by_path(grads).items()}
        norm = math.sqrt(sum(np.sum(g**2) for g in flat.values()))
        for k, g in flat.items():
            g = g * min(1, clip / norm)
            first[k] = b1 * first[k] + (1 - b1) * g
            second[k] = b2 * second[k] + (1 - b2) * g**2
            m, v = first[k] / (1 - b1**t), second[k] / (1 - b2**t)
            wd = 0.0 if k.endswith(("bias", "scale")) else decay
            theirs[k] = theirs[k] - rate * (m / (np.sqrt(v) + epsilon) + wd * theirs[k])
    for k, v in by_path(ours).items():
        np.testing.assert_allclose(v, theirs[k], rtol=2e-5, atol=1e-6, err_msg=k)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_descends(name):
    """A quadratic around other parameters, under jit, the rate decaying as a traced scalar."""
    cfg = OptimizerConfig(name=name, weight_decay=0.0, learning_rate=LEARNING_RATE[name])
    target = few_params(seed=1)

    def loss(tree):
        return optax.tree.norm(optax.tree.sub(tree, target), squared=True)

    @jax.jit
    def step(k, tree, state):
        optimizer = make_optimizer(cfg, tree, cfg.learning_rate * (1 - k / 60))
        updates, state = optimizer.update(jax.grad(loss)(tree), state, tree)
        return optax.apply_updates(tree, updates), state

    tree = few_params()
    state = make_optimizer(cfg, tree, 0.0).init(tree)
    before = loss(tree)
    for k in range(60):
        tree, state = step(jnp.int32(k), tree, state)
    assert loss(tree) < 0.2 * before


@pytest.mark.smoke
def test_muon_orthogonalises_each_layer_by_itself():
    tree, grads = params(n_layers=3), params(n_layers=3, seed=1)
    cfg = OptimizerConfig(name="muon", weight_decay=0.0, clip_norm=None)
    updates = by_path(one_update(cfg, tree, grads))
    matrices = {
        "blocks/0/attention/query/kernel": (6, 8),
        "blocks/0/attention/out/kernel": (8, 6),
        "blocks/0/mlp/up/kernel": (6, 5),
        "blocks/0/mlp/down/kernel": (5, 6),
    }
    for path, shape in matrices.items():
        layers = np.asarray(updates[path]).reshape(3, *shape)
        gradients = np.asarray(by_path(grads)[path]).reshape(3, *shape)
        singular = np.linalg.svd(layers, compute_uv=False) / (0.2 * max(shape) ** 0.5)
        # Five Newton-Schulz steps bring singular values into [0.68, 1.13]; those of the gradients
        # are far wider, and no coefficient fits three layers unless each was normed by itself.
        assert singular.min() > 0.6
        assert singular.max() < 1.3
        assert np.linalg.cond(gradients).max() > 3


def test_muon_on_a_stack_equals_optax_muon_on_each_matrix():
    tree, grads = params(n_layers=2), params(n_layers=2, seed=1)
    cfg = OptimizerConfig(
        name="muon", b1=0.95, learning_rate=0.1, adam_learning_rate=0.01, clip_norm=None
    )
    ours = by_path(one_update(cfg, tree, grads, rate=0.1))
    path = "blocks/0/attention/out/kernel"
    single = [by_path(tree)[path][i].reshape(8, 6) for i in range(2)]
    theirs = optax.contrib.muon(0.1, beta=0.95, weight_decay=0.1, consistent_rms=0.2)
    expected, _ = jax.jit(theirs.update)(
        [by_path(grads)[path][i].reshape(8, 6) for i in range(2)], theirs.init(single), single
    )
    for i in range(2):
        np.testing.assert_allclose(ours[path][i].reshape(8, 6), expected[i], rtol=1e-4, atol=1e-6)
    # What is no matrix is AdamW at its own rate: the first step is that rate, with its sign.
    sign = np.sign(by_path(grads)["final_norm/scale"])
    np.testing.assert_allclose(ours["final_norm/scale"], -0.01 * sign, rtol=1e-4)


def test_adafactor_on_a_stack_equals_each_layer_by_itself():
    """Also where heads are small: a kernel [D, N, H] counts as a D x NH matrix and is factored."""
    random = np.random.default_rng(0)
    scale = np.array([1.0, 100.0])[:, None, None, None]  # layers must not share their statistics
    kernel = jnp.asarray(random.normal(size=(2, 128, 4, 32)) * scale, jnp.float32)
    grad = jnp.asarray(random.normal(size=kernel.shape), jnp.float32)
    tree = {"blocks": {"0": {"attention": {"query": {"kernel": kernel}}}}}
    grads = jax.tree.map(lambda _: grad, tree)
    cfg = OptimizerConfig(name="adafactor", weight_decay=0.0, clip_norm=None, b1=0.5)
    optimizer = make_optimizer(cfg, tree, 0.1)
    state = optimizer.init(tree)
    momentum_aside = sum(x.size for x in jax.tree.leaves(state)) - kernel.size
    assert momentum_aside < 0.02 * kernel.size  # two vectors of 128 for each 128 x 128
    ours = jax.tree.leaves(jax.jit(optimizer.update)(grads, state, tree)[0])[0]
    theirs = optax.adafactor(0.1, momentum=0.5)
    for layer in range(2):
        p, g = kernel[layer].reshape(128, 128), grad[layer].reshape(128, 128)
        expected, _ = jax.jit(theirs.update)(g, theirs.init(p), p)
        np.testing.assert_allclose(ours[layer].reshape(128, 128), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "muon", "normuon", "sgd"])
def test_hyperparameters_may_be_mapped_over(name):
    """Trials packed with vmap move as they do one by one."""
    tree, grads = few_params(), few_params(seed=1)
    cfg = OptimizerConfig(name=name, decay="all")
    trials = [
        Hyperparameters.of(
            OptimizerConfig(
                learning_rate=rate,
                adam_learning_rate=rate / 3,
                b1=b1,
                b2=1 - rate,
                epsilon=1e-6 / rate,
                weight_decay=b1,
                clip_norm=10 * rate,
            )
        )
        for rate, b1 in [(0.1, 0.9), (0.02, 0.5), (0.3, 0.0)]
    ]

    def run(h: Hyperparameters):
        def step(carry, fraction):
            moved, state = carry
            optimizer = make_optimizer(cfg, moved, h.learning_rate * fraction, h)
            updates, state = optimizer.update(grads, state, moved)
            return (optax.apply_updates(moved, updates), state), None

        start = (tree, make_optimizer(cfg, tree, 0.0, h).init(tree))
        return jax.lax.scan(step, start, jnp.asarray([0.5, 1.0]))[0][0]

    packed = jax.jit(jax.vmap(run))(jax.tree.map(lambda *x: jnp.asarray(x), *trials))
    moved = [jax.jit(run)(h) for h in trials]
    assert not np.allclose(
        by_path(moved[0])["embedding/tokens"], by_path(moved[1])["embedding/tokens"]
    )
    for i, alone in enumerate(moved):
        for path, value in by_path(alone).items():
            got = np.asarray(by_path(packed)[path])[i]
            np.testing.assert_allclose(got, value, rtol=2e-4, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", NAMES)
def test_state_does_not_depend_on_numbers(name):
    tree = params()
    states = [
        make_optimizer(OptimizerConfig(name=name, clip_norm=clip, b1=b1), tree, rate).init(tree)
        for clip, b1, rate in [(None, 0.0, 0.0), (1.0, 0.9, 0.1)]
    ]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    jax.tree.map(np.testing.assert_array_equal, *states)
