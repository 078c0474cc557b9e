"""OLMoE (Muennighoff et al. 2024, arXiv:2409.02060): experts with plain gates, norms over all
heads."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.families import olmo
from gpt_jax.interop.families.mixtral import carried_experts, read_experts
from gpt_jax.interop.family import Allowed, Facts, Family, Size, usual_heads
from gpt_jax.interop.layouts import llama_table
from gpt_jax.interop.llama_like import ATTENTION_BIAS


def read(facts: Facts) -> dict[str, Any]:
    return {
        **llama_like.read(facts, epsilon=1e-5),
        **llama_like.biases(facts, ATTENTION_BIAS),
        **read_experts(facts, "num_experts", (64, 8), facts.get("norm_topk_prob", False)),
        "qk_norm": True,
        "qk_norm_over": "heads",
        "qkv_clip": facts.get("clip_qkv"),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    written = llama_like.write(config, without=("head_dim",), biases=ATTENTION_BIAS)
    return written | {
        "clip_qkv": config.qkv_clip,
        "num_experts": config.n_experts,
        "num_experts_per_tok": config.n_experts_per_token,
        "norm_topk_prob": config.expert_gates == "normalized",
    }


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config,
        **usual_heads(config),
        qk_norm=(True,),
        qk_norm_over=("heads",),
        qkv_clip=(config.qkv_clip,),
        **llama_like.bias_choices(config, ATTENTION_BIAS),
        **carried_experts(config, "normalized", "plain"),
    )


SHAPE = llama_like.shape(50304, 2048, 1024, 16, (16, 16), 4096)

ENTRY = Family(
    name="olmoe",
    summary="OLMoE",
    architecture="OlmoeForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    default_ids=olmo.IDS,
    sizes=(Size("OLMoE-1B-7B-0924", SHAPE, 6_919_161_856),),
    refused=f"{rope.REFUSED}; biases of experts",
)
