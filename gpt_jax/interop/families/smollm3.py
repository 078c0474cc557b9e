"""SmolLM3 (Bakouch et al. 2025): Llama with every fourth layer without positions."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like
from gpt_jax.interop.families.llama import BIASES
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table


def read(facts: Facts) -> dict[str, Any]:
    n, interval = facts["num_hidden_layers"], facts.get("no_rope_layer_interval", 4)
    rotated = facts.get("no_rope_layers") or [(i + 1) % interval for i in range(n)]
    if len(rotated) < n:
        raise ValueError(f"no_rope_layers has {len(rotated)} entries for {n} layers")
    kinds = ["dense" if has_positions else "nope" for has_positions in rotated[:n]]
    return {
        **llama_like.read(facts, theta=2_000_000.0, tied=True),
        **llama_like.biases(facts, **BIASES),
        "layer_pattern": llama_like.period(kinds),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    pattern = [int(kind != "nope") for kind in config.layer_pattern]
    written = llama_like.write(config)
    del written["head_dim"]
    return written | {
        "attention_bias": config.has_bias("qkv"),
        "mlp_bias": config.has_bias("mlp"),
        "no_rope_layers": pattern * (config.n_layers // len(pattern)),
        "use_sliding_window": False,
        "pad_token_id": None,  # its default is beyond a small vocabulary
    }


def carries(config: ModelConfig) -> Allowed:
    kinds = tuple(kind if kind == "nope" else "dense" for kind in config.layer_pattern)
    return llama_like.carries(
        config,
        layer_pattern=(kinds,),
        d_head=(config.d_model // config.n_heads,),
        **llama_like.bias_choices(config, *BIASES.values()),
    )


SHAPE = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 65536,
    "rope_theta": 5_000_000.0,
}

ENTRY = Family(
    name="smollm3",
    summary="SmolLM3",
    architecture="SmolLM3ForCausalLM",
    carries=carries,
    fixed={"use_sliding_window": (False,)},
    read=read,
    write=write,
    table=llama_table,
    default_ids={"bos_token_id": 128000, "eos_token_id": 128001},
    sizes=(Size("SmolLM3-3B", SHAPE, 3_075_098_624),),
    refused="use_sliding_window; rope_type dynamic and longrope",
)
