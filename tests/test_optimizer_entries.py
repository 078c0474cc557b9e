"""Optimizers as entries: NorMuon, any optax optimizer by name, options, state size and muP rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpt_jax.config import Config, ModelConfig, OptimizerConfig, overrides
from gpt_jax.cost.state import state_bytes
from gpt_jax.models.gpt import make_gpt
from gpt_jax.optim.entry import OPTIMIZERS
from gpt_jax.optim.updates import make_optimizer

MODEL = ModelConfig(vocab_size=11, seq_len=8, d_model=8, n_heads=2, n_layers=2)
UP, OUT = "blocks/0/mlp/up/kernel", "blocks/0/attention/out/kernel"


def drawn(seed: int):
    """A parameter of each kind, of two layers: these compile quickly."""
    random = np.random.default_rng(seed)

    def draw(*shape: int):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    layer = {"mlp": {"up": {"kernel": draw(2, 8, 12)}}}
    layer |= {"attention": {"out": {"kernel": draw(2, 2, 4, 8)}}}
    return {"blocks": {"0": layer}, "final_norm": {"scale": draw(8), "bias": draw(8)}}


def by_path(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in leaves
    }


def two_updates(config: OptimizerConfig, rate: float = 0.1) -> list[dict[str, np.ndarray]]:
    params = drawn(0)
    rule = make_optimizer(config, params, rate)
    state, updates = rule.init(params), []
    for seed in (1, 2):
        update, state = jax.jit(rule.update)(drawn(seed), state, params)
        updates.append(by_path(update))
    return updates


def test_normuon_equals_its_algorithm():
    """Algorithm 1 of arXiv:2510.05491 in float64, a matrix of outputs x inputs at a time."""
    b1, b2, decay = 0.8, 0.9, 0.1
    config = OptimizerConfig(
        name="normuon", b1=b1, clip_norm=None, weight_decay=decay, options={"neuron_decay": b2}
    )
    updates, params = two_updates(config), by_path(drawn(0))
    for path, n_inputs in ((UP, 8), (OUT, 8)):
        for layer in range(2):
            W = params[path][layer].reshape(n_inputs, -1).T.astype(np.float64)
            M, v = np.zeros_like(W), np.zeros(len(W))
            for t, seed in enumerate((1, 2)):
                M = b1 * M + (1 - b1) * by_path(drawn(seed))[path][layer].reshape(n_inputs, -1).T
                X = M / np.linalg.norm(M)
                for _ in range(5):
                    A = X @ X.T
                    X = 3.4445 * X + (-4.775 * A + 2.0315 * A @ A) @ X
                v = b2 * v + (1 - b2) * np.mean(X * X, axis=1)
                O = X / np.sqrt(v)[:, None]
                expected = -0.1 * (0.2 * np.sqrt(O.size) / np.linalg.norm(O) * O + decay * W)
                got = updates[t][path][layer].reshape(n_inputs, -1).T
                np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-5)
    sign = np.sign(by_path(drawn(1))["final_norm/scale"])
    np.testing.assert_allclose(updates[0]["final_norm/scale"], -0.1 * sign, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("normuon", {}),
        ("adabelief", {}),
        ("optax.sgd", {}),
        ("optax.sgd", {"momentum": 0.9}),
        ("optax.adam", {"mu_dtype": "bfloat16"}),
        ("contrib.muon", {}),
        ("optax.adafactor", {"min_dim_size_to_factor": 8}),
        ("prodigy", {}),
    ],
)
def test_state_size_is_that_of_the_state(name, options):
    config = OptimizerConfig(name=name, options=options)
    params = jax.eval_shape(make_gpt(MODEL).init, jax.random.key(0))
    state = jax.eval_shape(make_optimizer(config, params, 0.1).init, params)
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    # Counters, constants, and placeholders where adafactor factors, are left out.
    assert abs(stored - state_bytes(MODEL, config).optimizer) < 600


def test_an_optax_optimizer_moves_as_the_library_s():
    options = {"b1": 0.8, "eps": 1e-4}
    config = OptimizerConfig(name="adabelief", options=options, weight_decay=0, clip_norm=None)
    theirs = optax.adabelief(0.1, **options)
    params, state = drawn(0), theirs.init(drawn(0))
    for seed, ours in zip((1, 2), two_updates(config), strict=True):
        expected, state = theirs.update(drawn(seed), state, params)
        for path, value in by_path(expected).items():
            np.testing.assert_allclose(ours[path], value, rtol=1e-4, atol=1e-6, err_msg=path)
    decayed = OptimizerConfig(name="adabelief", options=options, weight_decay=0.5, clip_norm=None)
    plain, update = two_updates(config)[0], two_updates(decayed)[0]
    np.testing.assert_allclose(update[UP] - plain[UP], -0.05 * by_path(params)[UP], atol=1e-6)
    np.testing.assert_array_equal(update["final_norm/bias"], plain["final_norm/bias"])


def test_a_matrix_optimizer_of_optax_sees_each_layer_as_a_matrix():
    config = OptimizerConfig(name="contrib.muon", weight_decay=0, clip_norm=None)
    update = two_updates(config)[0][OUT]
    theirs = optax.contrib.muon(0.1)
    for layer in range(2):
        matrix = jnp.asarray(by_path(drawn(0))[OUT][layer].reshape(8, 8))
        gradient = jnp.asarray(by_path(drawn(1))[OUT][layer].reshape(8, 8))
        expected, _ = theirs.update([gradient], theirs.init([matrix]), [matrix])
        np.testing.assert_allclose(update[layer].reshape(8, 8), expected[0], rtol=1e-3, atol=1e-5)


MUP = {"model.parametrization": "mup", "model.base_d_model": 64, "optimizer.weight_decay": 0}


@pytest.mark.parametrize(
    ("name", "group", "rule"),
    [
        ("normuon", "hidden", "muon"),
        ("normuon", "output", "adam"),
        ("adabelief", "hidden", "adam"),
        ("optax.sgd", "hidden", "sgd"),
        ("sign_sgd", "input", "adam"),
    ],
)
def test_the_rule_under_mup(name, group, rule):
    config = overrides.override(Config(), MUP | {"optimizer.name": name})
    assert OPTIMIZERS.find(name).mup(group, config.optimizer.options) == rule


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "adamww"}, r"optimizer\.name = adamww; allowed: .*normuon.*did you mean 'adamw'"),
        ({"name": "optax.nothing"}, r"optimizer\.name = optax\.nothing; allowed: "),
        ({"name": "normuon", "options.neuron_deca": 0.5}, "did you mean 'neuron_decay'"),
        (
            {"name": "normuon", "options.neuron_decay": 1.5},
            r"options\.neuron_decay = 1\.5; allowed: number >= 0 < 1",
        ),
        ({"name": "adamw", "options.eps": 0.5}, r"options\.eps is unknown: adamw has no options"),
        ({"name": "adabelief", "options.beta": 0.5}, r"options\.beta is unknown: adabelief has b1"),
        ({"name": "adabelief", "options.weight_decay": 1}, r"is set by optimizer\.weight_decay"),
        ({"name": "adabelief", "b2": 0.5}, r"optimizer\.b2 = 0\.5 is not read by .*adabelief"),
        ({"name": "lbfgs"}, r"optimizer\.name = lbfgs cannot be used here"),
        ({"name": "optax.adam", "options.mu_dtype": "nothing"}, r"optax\.adam cannot be used"),
    ],
)
def test_mistakes_are_one_line(changes, said):
    with pytest.raises(ValueError, match=said) as caught:
        overrides.override(Config(), {f"optimizer.{k}": v for k, v in changes.items()})
    assert "\n" not in str(caught.value)


def test_an_optimizer_without_a_rule_is_refused_under_mup():
    with pytest.raises(ValueError, match=r"lamb has no rule under model\.parametrization"):
        overrides.override(Config(), MUP | {"optimizer.name": "lamb"})


def test_options_are_read_from_the_command_line_and_fingerprinted():
    given = ["--optimizer.name", "normuon", "--optimizer.options.neuron_decay", "0.9"]
    config = overrides.override(Config(), overrides.parse_arguments(given))
    assert config.optimizer.options == {"neuron_decay": 0.9}
    assert overrides.override(config, {"seed": 0}) == config
    plain = overrides.override(Config(), {"optimizer.name": "normuon"})
    assert overrides.fingerprint(plain) != overrides.fingerprint(config)
    assert hash(config) == hash(overrides.from_dict(overrides.to_dict(config)))
