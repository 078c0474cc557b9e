"""Qwen3 (Yang et al. 2025, arXiv:2505.09388), dense: queries and keys normalised per head."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.families import qwen2
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table
from gpt_jax.interop.llama_like import ATTENTION_BIAS


def read(facts: Facts) -> dict[str, Any]:
    return {
        **llama_like.read({"head_dim": 128, **facts}),
        **qwen2.read_windows(facts),
        **llama_like.biases(facts, ATTENTION_BIAS),
        "qk_norm": True,
    }


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config, biases=ATTENTION_BIAS) | qwen2.write_windows(config)


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config,
        qk_norm=(True,),
        **llama_like.bias_choices(config, ATTENTION_BIAS),
        **llama_like.any_windows(config),
    )


def shape(
    width: int, hidden: int, layers: int, heads: tuple[int, int], tied: bool = False
) -> dict[str, Any]:
    sizes = llama_like.shape(151936, width, hidden, layers, heads, 40960, tied)
    return sizes | {"head_dim": 128, "rope_theta": 1_000_000}


ENTRY = Family(
    name="qwen3",
    summary="Qwen3, dense",
    architecture="Qwen3ForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    sizes=(
        Size("Qwen3-0.6B", shape(1024, 3072, 28, (16, 8), tied=True), 596_049_920),
        Size("Qwen3-1.7B", shape(2048, 6144, 28, (16, 8), tied=True), 1_720_574_976),
        Size("Qwen3-4B", shape(2560, 9728, 36, (32, 8), tied=True), 4_022_468_096),
        Size("Qwen3-8B", shape(4096, 12288, 36, (32, 8)), 8_190_735_360),
        Size("Qwen3-14B", shape(5120, 17408, 40, (40, 8)), 14_768_307_200),
        Size("Qwen3-32B", shape(5120, 25600, 64, (64, 8)), 32_762_123_264),
    ),
    refused=rope.REFUSED,
)
