"""OLMo 2 (OLMo team 2025, arXiv:2501.00656): norms after sub-blocks, and over all heads."""

import functools
from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like
from gpt_jax.interop.family import Facts, Family, Size
from gpt_jax.interop.layouts import OLMO2_NORMS, llama_table

BIASES = {"attention_bias": ("qkv", "out")}
FORM = {"norm_position": "output", "qk_norm": True, "qk_norm_over": "heads"}


def read(facts: Facts) -> dict[str, Any]:
    return llama_like.read(facts, epsilon=1e-5) | llama_like.biases(facts, **BIASES) | FORM


def write(config: ModelConfig) -> dict[str, Any]:
    written = llama_like.write(config)
    del written["head_dim"]
    return written | {"attention_bias": config.has_bias("qkv")}


def carries(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    return llama_like.carries(
        config,
        d_head=(config.d_model // config.n_heads,),
        **{name: (value,) for name, value in FORM.items()},
        **llama_like.bias_choices(config, *BIASES.values()),
    )


def size(
    name: str,
    width: int,
    hidden: int,
    layers: int,
    heads: tuple[int, int],
    n: int,
    vocab: int = 100352,
) -> Size:
    return Size(
        name,
        {
            "vocab_size": vocab,
            "hidden_size": width,
            "intermediate_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads[0],
            "num_key_value_heads": heads[1],
            "max_position_embeddings": 4096,
            "rope_theta": 500_000,
        },
        n,
    )


ENTRY = Family(
    name="olmo2",
    summary="OLMo 2",
    architecture="Olmo2ForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=functools.partial(llama_table, norms=OLMO2_NORMS),
    default_ids={"eos_token_id": 50279},
    sizes=(
        size("OLMo-2-0425-1B", 2048, 8192, 16, (16, 16), 1_484_916_736),
        size("OLMo-2-1124-7B", 4096, 11008, 32, (32, 32), 7_298_617_344),
        size("OLMo-2-1124-13B", 5120, 13824, 40, (40, 40), 13_716_198_400),
        size("OLMo-2-0325-32B", 5120, 27648, 64, (40, 8), 32_234_279_936),
    ),
    refused="rope_type dynamic and longrope",
)
