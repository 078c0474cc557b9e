"""Qwen3 with experts (Yang et al. 2025, arXiv:2505.09388)."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like
from gpt_jax.interop.families import qwen3
from gpt_jax.interop.families.mixtral import carried_experts, read_experts
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table
from gpt_jax.interop.llama_like import ATTENTION_BIAS


def read(facts: Facts) -> dict[str, Any]:
    head = facts.get("head_dim") or facts["hidden_size"] // facts["num_attention_heads"]
    normalized = facts.get("norm_topk_prob", False)
    return {
        **qwen3.read({**facts, "head_dim": head}),
        **read_experts(facts, "num_experts", (128, 8), normalized),
        "ffn_size": facts.get("moe_intermediate_size", 768),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config, biases=ATTENTION_BIAS) | {
        "moe_intermediate_size": config.d_ff,
        "num_experts": config.n_experts,
        "num_experts_per_tok": config.n_experts_per_token,
        "norm_topk_prob": config.expert_gates == "normalized",
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    }


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config,
        qk_norm=(True,),
        **llama_like.bias_choices(config, ATTENTION_BIAS),
        **carried_experts(config, "normalized", "plain"),
    )


def _shape(width: int, hidden: int, layers: int, heads: tuple[int, int]) -> dict[str, Any]:
    experts = {"num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True}
    return qwen3.shape(width, 6144, layers, heads) | experts | {"moe_intermediate_size": hidden}


ENTRY = Family(
    name="qwen3_moe",
    summary="Qwen3 with experts",
    architecture="Qwen3MoeForCausalLM",
    carries=carries,
    fixed={
        "decoder_sparse_step": (1,),
        "mlp_only_layers": ([], None),
        "use_sliding_window": (False,),
    },
    read=read,
    write=write,
    table=llama_table,
    sizes=(
        Size("Qwen3-30B-A3B", _shape(2048, 768, 48, (32, 4)), 30_532_122_624),
        Size("Qwen3-235B-A22B", _shape(4096, 1536, 94, (64, 4)), 235_093_634_560),
    ),
    refused="layers without experts; use_sliding_window; biases of experts",
)
