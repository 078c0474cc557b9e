"""OLMo 2 (OLMo team 2025, arXiv:2501.00656): norms after sub-blocks, and over all heads."""

import functools
from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.families import olmo
from gpt_jax.interop.family import Facts, Family, Size, usual_heads
from gpt_jax.interop.layouts import OLMO2_NORMS, llama_table
from gpt_jax.interop.llama_like import ATTENTION_BIAS

FORM = {"norm_position": "output", "qk_norm": True, "qk_norm_over": "heads"}


def read(facts: Facts) -> dict[str, Any]:
    return llama_like.read(facts, epsilon=1e-5) | llama_like.biases(facts, ATTENTION_BIAS) | FORM


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config, without=("head_dim",), biases=ATTENTION_BIAS)


def carries(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    return llama_like.carries(
        config,
        **usual_heads(config),
        **{name: (value,) for name, value in FORM.items()},
        **llama_like.bias_choices(config, ATTENTION_BIAS),
    )


def _size(name: str, width: int, hidden: int, layers: int, heads: tuple[int, int], n: int) -> Size:
    shape = llama_like.shape(100352, width, hidden, layers, heads, 4096)
    return Size(name, shape | {"rope_theta": 500_000}, n)


ENTRY = Family(
    name="olmo2",
    summary="OLMo 2",
    architecture="Olmo2ForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=functools.partial(llama_table, norms=OLMO2_NORMS),
    default_ids=olmo.IDS,
    sizes=(
        _size("OLMo-2-0425-1B", 2048, 8192, 16, (16, 16), 1_484_916_736),
        _size("OLMo-2-1124-7B", 4096, 11008, 32, (32, 32), 7_298_617_344),
        _size("OLMo-2-1124-13B", 5120, 13824, 40, (40, 40), 13_716_198_400),
        _size("OLMo-2-0325-32B", 5120, 27648, 64, (40, 8), 32_234_279_936),
    ),
    refused=rope.REFUSED,
)
