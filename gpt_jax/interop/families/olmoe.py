"""OLMoE (Muennighoff et al. 2024, arXiv:2409.02060): experts with plain gates, norms over all
heads."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like
from gpt_jax.interop.families.mixtral import carried_experts, read_experts
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table

BIASES = {"attention_bias": ("qkv", "out")}


def read(facts: Facts) -> dict[str, Any]:
    return {
        **llama_like.read(facts, epsilon=1e-5),
        **llama_like.biases(facts, **BIASES),
        **read_experts(facts, "num_experts", 64, facts.get("norm_topk_prob", False)),
        "n_experts_per_token": facts.get("num_experts_per_tok", 8),
        "qk_norm": True,
        "qk_norm_over": "heads",
        "qkv_clip": facts.get("clip_qkv"),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    written = llama_like.write(config)
    del written["head_dim"]
    return written | {
        "attention_bias": config.has_bias("qkv"),
        "clip_qkv": config.qkv_clip,
        "num_experts": config.n_experts,
        "num_experts_per_tok": config.n_experts_per_token,
        "norm_topk_prob": config.expert_gates == "normalized",
    }


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config,
        d_head=(config.d_model // config.n_heads,),
        qk_norm=(True,),
        qk_norm_over=("heads",),
        qkv_clip=(config.qkv_clip,),
        **llama_like.bias_choices(config, *BIASES.values()),
        **carried_experts(config, "normalized", "plain"),
    )


SHAPE = {
    "vocab_size": 50304,
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 4096,
}

ENTRY = Family(
    name="olmoe",
    summary="OLMoE",
    architecture="OlmoeForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    default_ids={"eos_token_id": 50279},
    sizes=(Size("OLMoE-1B-7B-0924", SHAPE, 6_919_161_856),),
    refused="rope_type dynamic and longrope; biases of experts",
)
