"""Runs with random weights, for tests of import and export."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpt_jax.config import ComputeConfig, Config, ModelConfig
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.models.gpt import make_gpt
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import write_model

FLOAT32 = ComputeConfig(dtype="float32", layers="scan")
GPT2: dict[str, Any] = {}
GPT1 = {"norm_position": "post", "final_norm": False}
LLAMA = {
    "norm": "rmsnorm",
    "position": "rotary",
    "activation": "swiglu",
    "bias": False,
    "ffn_size": 44,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT2),
    "gpt2 untied": ("gpt2", {"tied_embeddings": False}),
    "gpt2 gelu": ("gpt2", {"activation": "gelu", "ffn_size": 40}),
    "gpt2 relu": ("gpt2", {"activation": "relu"}),
    "gpt2 relu_squared": ("gpt2", {"activation": "relu_squared"}),
    "gpt2 padded, epsilon": ("gpt2", {"vocab_multiple": 64, "norm_epsilon": 1e-2}),
    "gpt2 untied, padded": ("gpt2", {"vocab_multiple": 64, "tied_embeddings": False}),
    "gpt2 pattern": ("gpt2", {"layer_pattern": ("dense", "dense")}),
    "gpt1": ("openai-gpt", GPT1),
    "gpt1 untied relu": ("openai-gpt", GPT1 | {"tied_embeddings": False, "activation": "relu"}),
    "llama": ("llama", LLAMA),
    "llama untied": ("llama", LLAMA | {"tied_embeddings": False}),
    "llama grouped": ("llama", LLAMA | {"n_kv_heads": 2, "tied_embeddings": False}),
    "llama multi-query": ("llama", LLAMA | {"n_kv_heads": 1}),
    "llama biases": ("llama", LLAMA | {"bias": True}),
    "llama head size, base": ("llama", LLAMA | {"head_size": 6, "rotary_base": 500.0}),
    "llama geglu, epsilon": ("llama", LLAMA | {"activation": "geglu", "norm_epsilon": 1e-2}),
}
"""Name -> model_type, and fields: every option that a format can carry."""


def model_config(fields: dict[str, Any]) -> ModelConfig:
    sizes = {"vocab_size": 300, "seq_len": 48, "n_layers": 2, "d_model": 32, "n_heads": 4}
    return ModelConfig(**(sizes | fields))


def random_params(config: ModelConfig) -> Any:
    """Every array random, gains and biases too: none that is swapped or left out goes unseen."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(make_gpt(config).init, jax.random.key(0))

    def draw(path: Any, x: Any) -> jax.Array:
        gain = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(gain + random.normal(0, 0.2, x.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_run(
    directory: Path, fields: dict[str, Any], tokenizer: Tokenizer | None = None
) -> RunDirectory:
    config = Config(name="random", model=model_config(fields), compute=FLOAT32)
    run = RunDirectory(directory)
    write_model(run, config, random_params(config.model), tokenizer or ByteTokenizer(), {})
    return run
