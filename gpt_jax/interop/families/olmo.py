"""OLMo (Groeneveld et al. 2024, arXiv:2402.00838): norms without gain, clipped projections."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table

BIASES = {"attention_bias": ("qkv", "out")}


def read(facts: Facts) -> dict[str, Any]:
    return {
        **llama_like.read(facts),
        **llama_like.biases(facts, **BIASES),
        "norm": "layernorm",
        "norm_gain": "none",
        "norm_epsilon": 1e-5,
        "qkv_clip": facts.get("clip_qkv"),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    written = llama_like.write(config)
    for key in ("rms_norm_eps", "head_dim"):
        del written[key]
    return written | {"attention_bias": config.has_bias("qkv"), "clip_qkv": config.qkv_clip}


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config,
        norm=("layernorm",),
        norm_gain=("none",),
        norm_epsilon=(1e-5,),
        qkv_clip=(config.qkv_clip,),
        d_head=(config.d_model // config.n_heads,),
        **llama_like.bias_choices(config, *BIASES.values()),
    )


def _size(
    name: str, width: int, hidden: int, layers: int, heads: int, n: int, tied: bool = False
) -> Size:
    return Size(
        name,
        {
            "vocab_size": 50304,
            "hidden_size": width,
            "intermediate_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": tied,
        },
        n,
    )


ENTRY = Family(
    name="olmo",
    summary="OLMo 1B and 7B",
    architecture="OlmoForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    default_ids={"eos_token_id": 50279},
    sizes=(
        _size("OLMo-1B-hf", 2048, 8192, 16, 16, 1_176_764_416, tied=True),
        _size("OLMo-7B-hf", 4096, 11008, 32, 32, 6_888_095_744),
    ),
    refused="rope_type dynamic and longrope",
)
