"""GPT-NeoX (Black et al. 2022, arXiv:2204.06745) and Pythia (Biderman et al. 2023)."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import gpt_like, layouts, llama_like, rope
from gpt_jax.interop.family import Allowed, Facts, Family, Size, carried, choices, known, named
from gpt_jax.interop.gpt_like import ACTIVATIONS
from gpt_jax.interop.names import Tensor

ALWAYS = ("mlp", "norm")
"""Parts that have biases in any case; those of attention are `attention_bias`."""


def read(facts: Facts) -> dict[str, Any]:
    attention = ("qkv", "out") if facts.get("attention_bias", True) else ()
    parallel = facts.get("use_parallel_residual", True)
    head = facts["hidden_size"] // facts["num_attention_heads"]
    return {
        **llama_like.sizes(facts),
        **rope.read(facts, facts.get("rotary_emb_base", 10_000.0)),
        **llama_like.bias_fields((*attention, *ALWAYS), norm="layernorm"),
        "position": "rotary",
        "rotary_size": rope.rotated(rope.partial(facts, "rotary_pct", 0.25), head),
        "norm_epsilon": facts.get("layer_norm_eps", 1e-5),
        "activation": known(facts, "hidden_act", "gelu", ACTIVATIONS),
        "parallel_block": parallel,
        "parallel_norms": "separate" if parallel else "shared",
        "tied_embeddings": facts.get("tie_word_embeddings", False),
        "dropout_embedding": facts.get("hidden_dropout", 0.0),
        "dropout_residual": facts.get("hidden_dropout", 0.0),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    share = (config.rotary_size or config.d_head) / config.d_head
    sizes = llama_like.write_sizes(config)
    for key in ("num_key_value_heads", "head_dim"):
        del sizes[key]
    return sizes | {
        **rope.write(config, share),
        "rotary_pct": share,
        "rotary_emb_base": config.rotary_base,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_act": named(config.activation, ACTIVATIONS),
        "attention_bias": config.has_bias("qkv"),
        "use_parallel_residual": config.parallel_block,
        "hidden_dropout": config.dropout_residual,
    }


def carries(config: ModelConfig) -> Allowed:
    allowed = carried(
        config,
        **rope.free(config),
        **gpt_like.whole_heads(config),
        rotary_size=(config.rotary_size,),
        norm_epsilon=(config.norm_epsilon,),
        activation=choices(ACTIVATIONS),
        parallel_block=(True, False),
        parallel_norms=("separate",) if config.parallel_block else ("shared",),
        tied_embeddings=(True, False),
    )
    return allowed | {"biases": (None, ALWAYS, ALWAYS[::-1])}


def table(config: ModelConfig, prefix: str) -> list[Tensor]:
    found = [layouts.tokens(config, f"{prefix}embed_in")]
    for layer in range(config.n_layers):
        found += layouts.fused_block(config, f"{prefix}layers.{layer}.", "attention", layer)
    found += layouts.norm(f"{prefix}final_layer_norm", "final_norm", config)
    return [*found, *layouts.head(config, "embed_out", also="lm_head")]


def _pythia(name: str, shape: tuple[int, int, int], vocab: int, n_params: int) -> Size:
    layers, width, heads = shape
    facts = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
    }
    return Size(name, facts, n_params)


ENTRY = Family(
    name="gpt_neox",
    summary="GPT-NeoX-20B, Pythia",
    architecture="GPTNeoXForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=table,
    prefix="gpt_neox.",
    end_names=gpt_like.ENDS,
    default_ids={"bos_token_id": 0, "eos_token_id": 2},
    sizes=(
        _pythia("pythia-70m", (6, 512, 8), 50304, 70_426_624),
        _pythia("pythia-160m", (12, 768, 12), 50304, 162_322_944),
        _pythia("pythia-410m", (24, 1024, 16), 50304, 405_334_016),
        _pythia("pythia-1b", (16, 2048, 8), 50304, 1_011_781_632),
        _pythia("pythia-1.4b", (24, 2048, 16), 50304, 1_414_647_808),
        _pythia("pythia-2.8b", (32, 2560, 32), 50304, 2_775_208_960),
        _pythia("pythia-6.9b", (32, 4096, 32), 50432, 6_857_302_016),
        _pythia("pythia-12b", (36, 5120, 40), 50688, 11_846_072_320),
        _pythia("gpt-neox-20b", (44, 6144, 64), 50432, 20_554_567_680),
    ),
    refused=rope.REFUSED,
)
