"""Parameters out of weights with GPT-2's names, as nanoGPT and `transformers` write them.

Must not import jax: trees of numpy arrays.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt_jax.config import ModelConfig

Weights = Mapping[str, NDArray[Any]]


def params_from_gpt2(
    weights: Weights, config: ModelConfig, matrices: Literal["out_in", "in_out"]
) -> dict[str, Any]:
    """GPT-2-named weights -> our parameter tree, float32.

    matrices: how a projection's matrix is stored: "out_in" as torch's Linear (nanoGPT), "in_out"
    as the release's Conv1D (`transformers`). The head is tied. Raises ValueError for a config that
    GPT-2's names cannot carry, and naming a weight that is missing, left over or misshapen.
    """
    _check_architecture(config)
    width, heads, size = config.d_model, config.n_heads, config.d_head
    left = dict(weights)

    def take(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name not in left:
            raise ValueError(f"the weights have no {name}")
        array = np.asarray(left.pop(name), np.float32)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; the config makes it {shape}")
        return array

    def norm(name: str) -> dict[str, Any]:
        scale = {"scale": take(f"{name}.weight", (width,))}
        return scale | ({"bias": take(f"{name}.bias", (width,))} if config.bias else {})

    def projection(name: str, n_in: int, n_out: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        stored = (n_in, n_out) if matrices == "in_out" else (n_out, n_in)
        kernel = take(f"{name}.weight", stored)
        bias = take(f"{name}.bias", (n_out,)) if config.bias else None
        return (kernel if matrices == "in_out" else kernel.T), bias

    def shaped(kernel: NDArray[Any], bias: NDArray[Any] | None, n_in, n_out) -> dict[str, Any]:
        tree = {"kernel": kernel.reshape(*n_in, *n_out)}
        return tree if bias is None else tree | {"bias": bias.reshape(n_out)}

    def block(name: str) -> dict[str, Any]:
        kernel, bias = projection(f"{name}.attn.c_attn", width, 3 * width)
        kernels = np.split(kernel, 3, axis=1)
        biases = [None] * 3 if bias is None else np.split(bias, 3)
        attention = {
            part: shaped(k, b, (width,), (heads, size))
            for part, k, b in zip(("query", "key", "value"), kernels, biases, strict=True)
        }
        out = projection(f"{name}.attn.c_proj", heads * size, width)
        up = projection(f"{name}.mlp.c_fc", width, config.d_ff)
        down = projection(f"{name}.mlp.c_proj", config.d_ff, width)
        return {
            "attention_norm": norm(f"{name}.ln_1"),
            "attention": attention | {"out": shaped(*out, (heads, size), (width,))},
            "mlp_norm": norm(f"{name}.ln_2"),
            "mlp": {
                "up": shaped(*up, (width,), (config.d_ff,)),
                "down": shaped(*down, (config.d_ff,), (width,)),
            },
        }

    prefix = "transformer." if any(k.startswith("transformer.") for k in weights) else ""
    params = {
        "embedding": {
            "tokens": take(f"{prefix}wte.weight", (config.padded_vocab_size, width)),
            "positions": take(f"{prefix}wpe.weight", (config.seq_len, width)),
        },
        "blocks": _stacked([block(f"{prefix}h.{i}") for i in range(config.n_layers)], config),
        "final_norm": norm(f"{prefix}ln_f"),
    }
    left.pop("lm_head.weight", None)  # tied: the token embedding once more
    if left:
        raise ValueError(f"the config has no place for the weights {', '.join(sorted(left))}")
    return params


def _stacked(blocks: list[dict[str, Any]], config: ModelConfig) -> dict[str, Any]:
    """Layers as the model holds them: for each member of layer_pattern, its layers stacked."""
    period = len(config.layer_pattern)
    return {str(i): _stack(blocks[i::period]) for i in range(period)}


def _stack(trees: list[Any]) -> Any:
    if isinstance(trees[0], dict):
        return {name: _stack([tree[name] for tree in trees]) for name in trees[0]}
    return np.stack(trees)


def _check_architecture(config: ModelConfig) -> None:
    """Refuse what GPT-2's weights cannot be, by name."""
    expected = {
        "norm": "layernorm",
        "norm_position": "pre",
        "final_norm": True,
        "position": "learned",
        "parallel_block": False,
        "qk_norm": False,
        "tied_embeddings": True,
        "kv_heads": config.n_heads,
        "gated": False,
    }
    for name, value in expected.items():
        found = getattr(config, name)
        if found != value:
            raise ValueError(f"GPT-2 weights need {name} = {value}; the config has {found}")
