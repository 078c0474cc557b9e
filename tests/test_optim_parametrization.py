"""One step of every update rule under muP and CompleteP: its size for every kind of parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import ModelConfig, OptimizerConfig
from gpt_jax.models.gpt import make_gpt
from gpt_jax.optim.entry import Hyperparameters
from gpt_jax.optim.updates import make_optimizer

RATE = 0.5
PLAIN = {"clip_norm": None, "weight_decay": 0.0, "epsilon": 1e-8, "learning_rate": RATE}


def model(**changes) -> ModelConfig:
    """m = 4, l = 2, with every kind of parameter."""
    sizes = {"vocab_size": 11, "seq_len": 8, "n_layers": 4, "d_model": 16, "head_size": 4}
    base = {"parametrization": "completep", "base_d_model": 4, "base_n_layers": 2}
    kinds = {"tied_embeddings": False, "qk_norm": True}
    return ModelConfig(**{**sizes, "n_heads": 4, **base, **kinds, **changes})


def gradients_like(config: ModelConfig, size: float = 1.0):
    """Random signs times `size`."""
    shapes = jax.eval_shape(make_gpt(config).init, jax.random.key(0))
    random = np.random.default_rng(0)

    def draw(x):
        return jnp.asarray(size * random.choice([-1.0, 1.0], x.shape), jnp.float32)

    return jax.tree.map(draw, shapes)


def one_step(config: ModelConfig, optimizer: OptimizerConfig, gradients, params=None):
    """{path: update}."""
    params = jax.tree.map(jnp.zeros_like, gradients) if params is None else params
    rule = make_optimizer(optimizer, params, RATE, model=config)
    updates, _ = jax.jit(rule.update)(gradients, rule.init(params), params)
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def group(path: str) -> str:
    """Independent of the rules in gpt_jax.optim.roles."""
    if path.startswith("blocks"):
        if path.endswith("kernel"):
            return "hidden"
        return "per_head" if "query_norm" in path or "key_norm" in path else "hidden_vector"
    return {"embedding": "input", "head": "output", "final_norm": "vector"}[path.split("/")[0]]


SIZES = {
    "adamw": {"hidden": 1 / 4},
    "lion": {"hidden": 1 / 4},
    "sgd": {"input": 4, "hidden": 2, "hidden_vector": 8, "per_head": 2, "vector": 4, "output": 4},
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", SIZES)
def test_size_of_one_step(name):
    """With gradients of size 1, a step has the size of the learning rate: lr / m for a matrix."""
    config = model()
    updates = one_step(config, OptimizerConfig(name=name, **PLAIN), gradients_like(config))
    assert {group(path) for path in updates} >= {"input", "hidden", "per_head", "vector", "output"}
    for path, update in updates.items():
        expected = RATE * SIZES[name].get(group(path), 1)
        np.testing.assert_allclose(np.abs(update), expected, rtol=1e-5, err_msg=path)


def test_muon_moves_matrices_by_as_much_at_every_width():
    """Singular values of an update do not grow with the width (spectral condition)."""

    def singular_values(d_model: int):
        config = model(d_model=d_model, n_heads=d_model // 4, n_layers=2)
        options = OptimizerConfig(name="muon", adam_learning_rate=RATE / 5, **PLAIN)
        updates = one_step(config, options, gradients_like(config))
        np.testing.assert_allclose(np.abs(updates["embedding/tokens"]), RATE / 5, rtol=1e-5)
        np.testing.assert_allclose(np.abs(updates["head/kernel"]), RATE / 5, rtol=1e-5)
        kernels = {
            path: np.asarray(update[0])
            for path, update in updates.items()
            if path.endswith(("up/kernel", "query/kernel"))
        }
        return {
            path: np.linalg.svd(kernel.reshape(d_model, -1), compute_uv=False).mean()
            for path, kernel in kernels.items()
        }

    narrow, wide = singular_values(16), singular_values(64)
    for path in narrow:
        assert wide[path] == pytest.approx(narrow[path], rel=0.1), path


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "muon"])
def test_decay_times_learning_rate_is_the_same_for_all(name):
    """Nothing but decay moves a parameter without gradient: by rate x decay at every size."""
    config = model()
    params = gradients_like(config)
    options = OptimizerConfig(name=name, decay="all", **PLAIN | {"weight_decay": 0.25})
    still = jax.tree.map(jnp.zeros_like, params)
    updates = one_step(config, options, still, params)
    for path, update in updates.items():
        np.testing.assert_allclose(np.abs(update), RATE * 0.25, rtol=1e-5, err_msg=path)


EPSILON = {"hidden": 1 / 8, "hidden_vector": 1 / 8, "per_head": 1 / 2}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_epsilon_keeps_pace_with_gradients(name):
    """Adam's first step is g / (|g| + epsilon): half a step where g is the epsilon of the role."""
    config = model()
    options = OptimizerConfig(name=name, **PLAIN | {"epsilon": 1e-2})

    def scaled(path, g):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return g * 1e-2 * EPSILON.get(group(name), 1 / 4)

    gradients = jax.tree_util.tree_map_with_path(scaled, gradients_like(config))
    for path, update in one_step(config, options, gradients).items():
        if group(path) == "hidden" and name == "muon":
            continue
        expected = RATE / 2 * SIZES["adamw"].get(group(path), 1)
        np.testing.assert_allclose(np.abs(update), expected, rtol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_packed_trials_move_as_each_by_itself(name):
    """Every number of a trial may be a tracer."""
    config = model(n_layers=2)
    params, gradients = gradients_like(config), gradients_like(config, 0.1)
    options = OptimizerConfig(name=name)
    trials = [
        Hyperparameters.of(
            OptimizerConfig(learning_rate=rate, weight_decay=rate, epsilon=rate, b1=0.5)
        )
        for rate in (0.1, 0.4)
    ]

    def step(h: Hyperparameters):
        rule = make_optimizer(options, params, h.learning_rate / 2, h, model=config)
        return rule.update(gradients, rule.init(params), params)[0]

    packed = jax.jit(jax.vmap(step))(jax.tree.map(lambda *x: jnp.asarray(x), *trials))
    for i, trial in enumerate(trials):
        jax.tree.map(
            lambda got, want, i=i: np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-6),
            packed,
            jax.jit(step)(trial),
        )


def test_without_a_model_or_with_a_standard_one_all_parameters_move_alike():
    standard = model(parametrization="standard", base_d_model=None, base_n_layers=None)
    gradients = gradients_like(standard)
    for config in (None, standard):
        updates = one_step(config, OptimizerConfig(**PLAIN), gradients)
        for path, update in updates.items():
            np.testing.assert_allclose(np.abs(update), RATE, rtol=1e-5, err_msg=path)
