"""StableLM (Bellagente et al. 2024, arXiv:2402.17834): partial rotary positions, LayerNorm."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import gpt_like, llama_like, rope
from gpt_jax.interop.family import Allowed, Facts, Family, Size, usual_heads
from gpt_jax.interop.layouts import llama_table


def read(facts: Facts) -> dict[str, Any]:
    head = facts["hidden_size"] // facts["num_attention_heads"]
    qkv = ("qkv",) if facts.get("use_qkv_bias", False) else ()
    share = facts.get("rope_pct", 0.25)
    return {
        **llama_like.read(facts),
        **llama_like.bias_fields((*qkv, "norm"), norm="layernorm"),
        "norm": "layernorm",
        "norm_epsilon": facts.get("layer_norm_eps", 1e-5),
        "rotary_size": rope.rotated(rope.partial(facts, "partial_rotary_factor", share), head),
        "parallel_block": facts.get("use_parallel_residual", False),
        "dropout_residual": facts.get("hidden_dropout", 0.0),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    share = (config.rotary_size or config.d_head) / config.d_head
    return llama_like.write(config, without=("rms_norm_eps", "head_dim")) | {
        **rope.write(config, share),
        "partial_rotary_factor": share,
        "layer_norm_eps": config.norm_epsilon,
        "use_qkv_bias": config.has_bias("qkv"),
        "use_parallel_residual": config.parallel_block,
        "hidden_dropout": config.dropout_residual,
    }


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config,
        **usual_heads(config),
        norm=("layernorm",),
        bias=(True,),
        biases=(("norm",), ("qkv", "norm"), ("norm", "qkv")),
        rotary_size=(config.rotary_size,),
        parallel_block=(True, False),
    )


def _size(
    name: str, width: int, hidden: int, layers: int, heads: int, vocab: int, qkv: bool, n: int
) -> Size:
    shape = llama_like.shape(vocab, width, hidden, layers, (heads, heads), 4096)
    return Size(name, shape | {"use_qkv_bias": qkv}, n)


ENTRY = Family(
    name="stablelm",
    summary="StableLM 3B-4E1T, StableLM 2 1.6B",
    architecture="StableLmForCausalLM",
    carries=carries,
    fixed={"qk_layernorm": (False,)},
    read=read,
    write=write,
    table=llama_table,
    end_names=gpt_like.ENDS,
    default_ids={"bos_token_id": 0, "eos_token_id": 0},
    sizes=(
        _size("stablelm-3b-4e1t", 2560, 6912, 32, 32, 50304, False, 2_795_443_200),
        _size("stablelm-2-1_6b", 2048, 5632, 24, 32, 100352, True, 1_644_515_328),
    ),
    refused="qk_layernorm (StableLM 2 12B)",
)
