"""What only a real GPU or TPU can answer: run there by `pytest -m accelerator tests/accelerators`.

Numbers that these tests print (-s) belong into experiments/accelerators/README.md.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost.estimate import make_plan
from gpt_jax.cost.hardware import identify
from gpt_jax.cost.topology import Topology
from gpt_jax.data.batch import Batch
from gpt_jax.models.attention import attend
from gpt_jax.models.gpt import make_gpt
from gpt_jax.models.pattern import Pattern
from gpt_jax.models.products import precision
from gpt_jax.objectives.pretraining import batch_loss
from gpt_jax.parallel.sharding import make_layout
from gpt_jax.published.step_times import about_seconds
from gpt_jax.steps.compiled_steps import compile_steps
from gpt_jax.steps.step import make_settings

pytestmark = pytest.mark.accelerator

SIZES = {
    "model.vocab_size": 32_768,
    "model.seq_len": 1024,
    "model.n_layers": 6,
    "model.d_model": 512,
    "model.n_heads": 8,
    "train.batch_sequences": 8,
    "train.tokens": 8 * 1024 * 100,
}


@pytest.fixture(scope="module")
def backend() -> str:
    """gpu or tpu, or a skip."""
    name = jax.default_backend()
    if name not in ("gpu", "tpu"):
        pytest.skip(f"no GPU or TPU here: jax runs on {name}")
    return name


def random_batch(config: Config, seed: int = 0) -> Batch:
    shape = config.train.batch_sequences, config.model.seq_len + 1
    ids = np.random.default_rng(seed).integers(0, config.model.vocab_size, shape, np.int32)
    return Batch(ids[:, :-1], ids[:, 1:], np.ones(ids[:, 1:].shape, np.float32), None)


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_the_fast_path_has_the_loss_and_gradient_of_float32(backend, remat):
    losses_and_gradients(backend, remat, SIZES)


def losses_and_gradients(backend, remat, sizes) -> None:
    config = overrides.override(Config(), sizes | {"compute.remat": remat})
    plain = {"compute.dtype": "float32", "compute.attention": "reference", "compute.loss": "whole"}
    exact = overrides.override(config, plain | {"compute.remat": "none"})
    batch = random_batch(config)

    def run(config, matmuls):
        model = make_gpt(config.model, config.compute, backend=backend)
        params = model.init(jax.random.key(0))
        with jax.default_matmul_precision(matmuls):
            found = jax.jit(
                jax.value_and_grad(lambda p: batch_loss(model, p, batch)[0] / batch.tokens_BT.size)
            )(params)
        return jax.device_get(found)

    (loss, gradient), (exact_loss, exact_gradient) = run(config, "default"), run(exact, "highest")
    assert loss == pytest.approx(exact_loss, rel=2e-3)
    norms = [
        float(np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree))))
        for tree in (jax.tree.map(np.subtract, gradient, exact_gradient), exact_gradient)
    ]
    assert norms[0] / norms[1] < 0.03


PATTERNS = {"dense": (None, False), "banded": (256, False), "segments": (None, True)}


@pytest.mark.parametrize("name", PATTERNS)
def test_fused_attention_is_the_reference(backend, name):
    kernel = {"gpu": "cudnn", "tpu": "splash"}[backend]
    attention_and_reference(backend, kernel, name)


def attention_and_reference(backend, kernel, name, n_tokens=1024) -> None:
    window, segmented = PATTERNS[name]
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (
        jax.random.normal(key, (2, n_tokens, heads, 64), jnp.bfloat16)
        for key, heads in zip(keys, (8, 4, 4), strict=True)
    )
    parts = [n_tokens // 4, n_tokens - n_tokens // 4]
    segments = jnp.asarray(np.repeat([[3, 4]], parts, axis=1).repeat(2, 0)) if segmented else None
    how = precision("bfloat16", "plain", backend)

    def both_ways(which, q, k, v):
        def attended(q, k, v):
            return attend(which, q, k, v, Pattern(window), how, 128, segments)

        out, backward = jax.vjp(attended, q, k, v)
        return out, *backward(jnp.cos(3 * out.astype(jnp.float32)).astype(out.dtype))

    for ours, theirs in zip(
        jax.jit(functools.partial(both_ways, kernel))(q, k, v),
        jax.jit(functools.partial(both_ways, "reference"))(q, k, v),
        strict=True,
    ):
        ours, theirs = (np.asarray(x, np.float32) for x in (ours, theirs))
        assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 0.02


def test_a_step_takes_about_as_long_as_planned(backend):
    """GPT-2 124M's shape, on one device."""
    chip = identify(jax.devices()[0].device_kind)
    if chip is None:
        pytest.skip(f"no peak is known of {jax.devices()[0].device_kind}")
    shape = (1,) * (chip.interconnect.dims or 1)
    sizes = {"model.n_layers": 12, "model.d_model": 768, "model.n_heads": 12}
    config = overrides.override(Config(), SIZES | sizes)
    plan = make_plan(config, Topology(chip, shape))
    seconds = step_seconds(config)
    print(
        f"{chip.name}: a step takes {seconds:.4f} s; planned {about_seconds(plan):.4f}, at least "
        f"{plan.bound_seconds:.4f}; MFU {plan.mfu(seconds):.1%}"
    )
    assert plan.bound_seconds < seconds < 3 * about_seconds(plan)


def step_seconds(config: Config, n_steps: int = 10) -> float:
    """The median of so many steps on the first device."""
    layout = make_layout(config, jax.devices()[:1])
    steps = compile_steps(config, make_gpt(config.model, config.compute, layout), layout)
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], random_batch(config))
    settings = make_settings(config, make_timetable(config))
    state, times = steps.init(jax.random.key(0)), []
    for _ in range(n_steps + 2):
        start = time.perf_counter()
        state, metrics = steps.train(state, batch, np.int32(1), settings)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))
