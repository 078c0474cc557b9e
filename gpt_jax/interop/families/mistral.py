"""Mistral 7B (Jiang et al. 2023, arXiv:2310.06825): Llama with a window, and heads of any size."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table


def read_window(facts: Facts) -> dict[str, Any]:
    """Every layer slides, or none: a file without the key has a window of 4,096."""
    window = facts.get("sliding_window", 4096)
    return {} if window is None else {"layer_pattern": ("banded",), "window": window}


def carried_window(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    n = len(config.layer_pattern)
    return {"layer_pattern": (("dense",) * n, ("banded",) * n), "window": (config.window,)}


def written_window(config: ModelConfig) -> int | None:
    return config.window if "banded" in config.layer_pattern else None


def read(facts: Facts) -> dict[str, Any]:
    return llama_like.read(facts) | read_window(facts)


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config) | {"sliding_window": written_window(config)}


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(config, **carried_window(config))


SHAPE = llama_like.shape(32000, 4096, 14336, 32, (32, 8), 32768)
NEMO = {
    "vocab_size": 131072,
    "hidden_size": 5120,
    "num_hidden_layers": 40,
    "head_dim": 128,
    "sliding_window": None,
}

ENTRY = Family(
    name="mistral",
    summary="Mistral 7B, Mistral Nemo",
    architecture="MistralForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    end_names=llama_like.ENDS,
    default_ids=llama_like.IDS,
    sizes=(
        Size("Mistral-7B-v0.1", SHAPE, 7_241_732_096),
        Size("Mistral-7B-v0.3", SHAPE | {"vocab_size": 32768}, 7_248_023_552),
        Size("Mistral-Nemo-12B", SHAPE | NEMO, 12_247_782_400),
    ),
    refused=rope.REFUSED,
)
