"""SmolLM3 (Bakouch et al. 2025): Llama with every fourth layer without positions."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.families.llama import BIASES
from gpt_jax.interop.family import Allowed, Facts, Family, Size, usual_heads
from gpt_jax.interop.layouts import llama_table


def read(facts: Facts) -> dict[str, Any]:
    n, interval = facts["num_hidden_layers"], facts.get("no_rope_layer_interval", 4)
    rotated = facts.get("no_rope_layers") or [(i + 1) % interval for i in range(n)]
    if len(rotated) < n:
        raise ValueError(f"no_rope_layers has {len(rotated)} entries for {n} layers")
    kinds = ["dense" if has_positions else "nope" for has_positions in rotated[:n]]
    return {
        **llama_like.read(facts, theta=2_000_000.0, tied=True),
        **llama_like.biases(facts, BIASES),
        "layer_pattern": llama_like.period(kinds),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    pattern = [int(kind != "nope") for kind in config.layer_pattern]
    return llama_like.write(config, without=("head_dim",), biases=BIASES) | {
        "no_rope_layers": pattern * (config.n_layers // len(pattern)),
        "use_sliding_window": False,
        "pad_token_id": None,  # its default is beyond a small vocabulary
    }


def carries(config: ModelConfig) -> Allowed:
    kinds = tuple(kind if kind == "nope" else "dense" for kind in config.layer_pattern)
    return llama_like.carries(
        config,
        layer_pattern=(kinds,),
        **usual_heads(config),
        **llama_like.bias_choices(config, BIASES),
    )


SHAPE = llama_like.shape(128256, 2048, 11008, 36, (16, 4), 65536)

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
    sizes=(Size("SmolLM3-3B", SHAPE | {"rope_theta": 5_000_000.0}, 3_075_098_624),),
    refused=f"use_sliding_window; {rope.REFUSED}",
)
