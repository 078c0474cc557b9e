"""OLMo (Groeneveld et al. 2024, arXiv:2402.00838): norms without gain, clipped projections."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.family import Allowed, Facts, Family, Size, usual_heads
from gpt_jax.interop.layouts import llama_table
from gpt_jax.interop.llama_like import ATTENTION_BIAS

IDS = {"eos_token_id": 50279}
"""End of text of the GPT-NeoX tokenizer with OLMo's tokens."""


def read(facts: Facts) -> dict[str, Any]:
    return {
        **llama_like.read(facts),
        **llama_like.biases(facts, ATTENTION_BIAS),
        "norm": "layernorm",
        "norm_gain": "none",
        "norm_epsilon": 1e-5,
        "qkv_clip": facts.get("clip_qkv"),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    without = ("rms_norm_eps", "head_dim")
    written = llama_like.write(config, without=without, biases=ATTENTION_BIAS)
    return written | {"clip_qkv": config.qkv_clip}


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config,
        norm=("layernorm",),
        norm_gain=("none",),
        norm_epsilon=(1e-5,),
        qkv_clip=(config.qkv_clip,),
        **usual_heads(config),
        **llama_like.bias_choices(config, ATTENTION_BIAS),
    )


def _size(
    name: str, width: int, hidden: int, layers: int, heads: int, n: int, tied: bool = False
) -> Size:
    shape = llama_like.shape(50304, width, hidden, layers, (heads, heads), 2048, tied)
    return Size(name, shape, n)


ENTRY = Family(
    name="olmo",
    summary="OLMo 1B and 7B",
    architecture="OlmoForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    default_ids=IDS,
    sizes=(
        _size("OLMo-1B-hf", 2048, 8192, 16, 16, 1_176_764_416, tied=True),
        _size("OLMo-7B-hf", 4096, 11008, 32, 32, 6_888_095_744),
    ),
    refused=rope.REFUSED,
)
