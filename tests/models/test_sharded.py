"""A mesh of 8 simulated devices gives the logits, gradients and texts of one device."""

import os
import subprocess
import sys

from xla_flags import simulated_devices

SCRIPT = """
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gpt_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig, TrainConfig
from gpt_jax.inference.decode import generate_tokens
from gpt_jax.models.gpt import make_gpt
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.parallel.sharding import make_layout

config = ModelConfig(
    vocab_size=14, vocab_multiple=8, seq_len=8, n_layers=2, d_model=16, n_heads=4, n_kv_heads=1,
    scores=("soft_cap", "sinks"),
)
compute = ComputeConfig(dtype="float32", layers="scan", attention="reference")
mesh = MeshConfig(data=2, fsdp=2, tensor=2)
layout = make_layout(Config(model=config, mesh=mesh, train=TrainConfig(batch_sequences=4)))
plain, sharded = make_gpt(config, compute), make_gpt(config, compute, layout)
random = np.random.default_rng(0)
shapes = jax.eval_shape(plain.init, jax.random.key(0))
params = jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.5, x.shape), jnp.float32), shapes)
placed = jax.device_put(params, layout.shardings(sharded.param_axes()))
tokens = random.integers(0, 14, (4, 8))


def loss(model, params, tokens):
    logits = model.apply(params, tokens)
    return jnp.sum(jnp.sin(logits[..., :14])), logits


def gradients(model, params, tokens):
    return jax.jit(jax.value_and_grad(functools.partial(loss, model), has_aux=True))(params, tokens)


close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
jax.tree.map(
    close,
    gradients(sharded, placed, jax.device_put(tokens, layout.batch)),
    gradients(plain, params, tokens),
)
kernel = placed["blocks"]["0"]["attention"]["query"]["kernel"]
assert kernel.addressable_shards[0].data.shape == (2, 8, 2, 4), kernel.sharding
constraint = "sharding_constraint"
counts = [str(jax.make_jaxpr(m.apply)(params, tokens)).count(constraint) for m in (sharded, plain)]
assert counts[0] >= 8 and counts[1] == 0, counts

prompts = [np.array([1, 2, 3]), np.array([4])]
sampling = SamplingConfig(max_new_tokens=12, seed=5)
texts = [generate_tokens(m, p, prompts, sampling) for m, p in ((sharded, placed), (plain, params))]
for ours, theirs in zip(*texts, strict=True):
    np.testing.assert_array_equal(ours, theirs)
print("equal")
"""


def test_eight_devices_give_what_one_gives():
    environment = os.environ | {"XLA_FLAGS": simulated_devices(8), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("equal\n"), done.stderr[-3000:]
