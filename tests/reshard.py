"""A whole training state, saved or restored by some processes on some devices: what its bits are.

    python reshard.py save|restore DIRECTORY MESH N_DEVICES [PORT N_PROCESSES I]

MESH is JSON, as in {"fsdp": 4, "tensor": 2}; N_DEVICES are of a process. Prints a digest of every
array, gathered from all processes, and how many of them are split.
"""

import hashlib
import json
import os
import sys

from xla_flags import simulated_devices


def main(verb, directory, mesh, n_devices, port="0", n_processes="1", number="0"):
    os.environ["XLA_FLAGS"] = simulated_devices(int(n_devices))
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    if n_processes != "1":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", int(n_processes), int(number))
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    from gpt_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig, OptimizerConfig
    from gpt_jax.models.gpt import make_gpt
    from gpt_jax.parallel.sharding import make_layout
    from gpt_jax.runs.checkpoint import Checkpoints
    from gpt_jax.steps.compiled_steps import compile_steps

    config = Config(
        model=ModelConfig(vocab_size=64, seq_len=16, n_layers=2, d_model=16, n_heads=4),
        mesh=MeshConfig(**json.loads(mesh)),
        optimizer=OptimizerConfig(ema_decay=0.9),
        compute=ComputeConfig(dtype="float32", attention="reference"),
    )
    layout = make_layout(config)
    steps = compile_steps(config, make_gpt(config.model, config.compute, layout), layout)
    checkpoints = Checkpoints(directory, config)
    if verb == "save":
        state = jax.jit(steps.init)(jax.random.key(0))
        shardings = jax.tree.map(lambda x: x.sharding, steps.abstract_state)

        def moved(x):  # moments too are no longer zero
            wave = jnp.sin(jnp.arange(x.size)).reshape(x.shape)
            return x + (100 * wave).astype(x.dtype)

        state = jax.jit(lambda s: jax.tree.map(moved, s), out_shardings=shardings)(state)
        checkpoints.save(7, state)
    else:
        state, step = checkpoints.restore(steps.abstract_state)
        assert step == 7
        for x, wanted in zip(
            jax.tree.leaves(state), jax.tree.leaves(steps.abstract_state), strict=True
        ):
            assert x.sharding == wanted.sharding
    checkpoints.close()
    digest, n_split = hashlib.sha256(), 0
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        n_split += not x.sharding.is_fully_replicated
        whole = np.asarray(process_allgather(x, tiled=True))
        digest.update(f"{path} {whole.dtype} {whole.shape}".encode() + whole.tobytes())
    print(digest.hexdigest(), n_split, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
