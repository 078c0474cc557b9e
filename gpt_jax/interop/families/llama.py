"""Llama 1 to 3.2 (Touvron et al. 2023; Grattafiori et al. 2024), and what has its form: SmolLM2."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table
from gpt_jax.interop.llama_like import ATTENTION_BIAS, BiasKeys

BIASES: BiasKeys = {**ATTENTION_BIAS, "mlp_bias": ("mlp",)}


def read(facts: Facts) -> dict[str, Any]:
    return llama_like.read(facts) | llama_like.biases(facts, BIASES)


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config, biases=BIASES)


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(config, **llama_like.bias_choices(config, BIASES))


def _size(
    name: str,
    vocab: int,
    width: int,
    hidden: int,
    layers: int,
    heads: tuple[int, int],
    n: int,
    tied: bool = False,
) -> Size:
    return Size(name, llama_like.shape(vocab, width, hidden, layers, heads, 2048, tied), n)


ENTRY = Family(
    name="llama",
    summary="Llama 1 to 3.2, SmolLM2, TinyLlama",
    architecture="LlamaForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    end_names=llama_like.ENDS,
    default_ids=llama_like.IDS,
    sizes=(
        _size("Llama-2-7b", 32000, 4096, 11008, 32, (32, 32), 6_738_415_616),
        _size("Llama-2-13b", 32000, 5120, 13824, 40, (40, 40), 13_015_864_320),
        _size("Llama-2-70b", 32000, 8192, 28672, 80, (64, 8), 68_976_648_192),
        _size("Llama-3.1-8B", 128256, 4096, 14336, 32, (32, 8), 8_030_261_248),
        _size("Llama-3.1-70B", 128256, 8192, 28672, 80, (64, 8), 70_553_706_496),
        _size("Llama-3.2-1B", 128256, 2048, 8192, 16, (32, 8), 1_235_814_400, tied=True),
        _size("Llama-3.2-3B", 128256, 3072, 8192, 28, (24, 8), 3_212_749_824, tied=True),
        _size("SmolLM2-135M", 49152, 576, 1536, 30, (9, 3), 134_515_008, tied=True),
        _size("SmolLM2-360M", 49152, 960, 2560, 32, (15, 5), 361_821_120, tied=True),
        _size("SmolLM2-1.7B", 49152, 2048, 8192, 24, (32, 32), 1_711_376_384, tied=True),
        _size("TinyLlama-1.1B", 32000, 2048, 5632, 22, (32, 4), 1_100_048_384),
    ),
    refused=f"{rope.REFUSED}; activations but silu and gelu's tanh form",
)
