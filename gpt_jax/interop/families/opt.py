"""OPT (Zhang et al. 2022, arXiv:2205.01068): learned positions from row 2 on, ReLU."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import gpt_like, layouts, llama_like
from gpt_jax.interop.family import Allowed, Facts, Family, Size, carried, choices, known, named
from gpt_jax.interop.gpt_like import ACTIVATIONS
from gpt_jax.interop.names import Tensor

SPARE_ROWS = 2
"""Rows of the position embedding before that of the first token, which padding looks up."""


def read(facts: Facts) -> dict[str, Any]:
    width = facts["hidden_size"]
    if (facts.get("word_embed_proj_dim") or width) != width:
        raise ValueError(
            f"word_embed_proj_dim = {facts['word_embed_proj_dim']} (opt-350m: embeddings that are "
            f"projected) is not computed here; allowed: hidden_size = {width}"
        )
    before = facts.get("do_layer_norm_before", True)
    norms = facts.get("layer_norm_elementwise_affine", True)
    parts = ("qkv", "out", "mlp") if facts.get("enable_bias", True) else ()
    return {
        "vocab_size": facts["vocab_size"],
        "seq_len": facts["max_position_embeddings"],
        "n_layers": facts["num_hidden_layers"],
        "n_heads": facts["num_attention_heads"],
        "d_model": width,
        "ffn_size": facts["ffn_dim"],
        "norm_gain": "plain" if norms else "none",
        "norm_position": "pre" if before else "post",
        "final_norm": before and not facts.get("_remove_final_layer_norm", False),
        **llama_like.bias_fields((*parts, "norm"), norm="layernorm"),
        "activation": known(facts, "activation_function", "relu", ACTIVATIONS),
        "tied_embeddings": facts.get("tie_word_embeddings", True),
        "dropout_residual": facts.get("dropout", 0.1),
        "dropout_attention": facts.get("attention_dropout", 0.0),
        "init_std": facts.get("init_std", 0.02),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    before = config.norm_position == "pre"
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.seq_len,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "hidden_size": config.d_model,
        "word_embed_proj_dim": config.d_model,
        "ffn_dim": config.d_ff,
        "layer_norm_elementwise_affine": config.norm_gain == "plain",
        "do_layer_norm_before": before,
        "_remove_final_layer_norm": before and not config.final_norm,
        "enable_bias": config.has_bias("qkv"),
        "activation_function": named(config.activation, ACTIVATIONS),
        "tie_word_embeddings": config.tied_embeddings,
        "dropout": config.dropout_residual,
        "attention_dropout": config.dropout_attention,
        "init_std": config.init_std,
        "layerdrop": 0.0,
        # The reference sets the row of this id to zero as it trains; ids of ours have none.
        "pad_token_id": None,
    }


def carries(config: ModelConfig) -> Allowed:
    return carried(
        config,
        **gpt_like.whole_heads(config),
        norm_epsilon=(1e-5,),
        norm_gain=("plain", "none"),
        norm_position=("pre", "post"),
        final_norm=(True, False) if config.norm_position == "pre" else (False,),
        biases=(None, ("norm",)),
        activation=choices(ACTIVATIONS),
        tied_embeddings=(True, False),
    )


def table(config: ModelConfig, prefix: str) -> list[Tensor]:
    prefix = f"{prefix}decoder."
    found = [
        layouts.tokens(config, f"{prefix}embed_tokens"),
        layouts.positions(config, f"{prefix}embed_positions", SPARE_ROWS),
    ]
    for layer in range(config.n_layers):
        name = f"{prefix}layers.{layer}."
        found += layouts.norm(f"{name}self_attn_layer_norm", "attention_norm", config, layer)
        found += layouts.norm(f"{name}final_layer_norm", "mlp_norm", config, layer)
        found += layouts.attention(config, f"{name}self_attn.", layer, out="out_proj")
        found += layouts.plain_mlp(config, f"{name}fc1", f"{name}fc2", layer)
    if config.final_norm:
        found += layouts.norm(f"{prefix}final_layer_norm", "final_norm", config)
    return [*found, *layouts.head(config)]


def _size(name: str, width: int, layers: int, heads: int, n: int) -> Size:
    facts = {
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": width,
        "ffn_dim": 4 * width,
    }
    return Size(name, facts, n)


ENTRY = Family(
    name="opt",
    summary="OPT, but for 350M",
    architecture="OPTForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=table,
    end_names={"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"},
    default_ids={"bos_token_id": 2, "eos_token_id": 2},
    unused=lambda config: SPARE_ROWS * config.d_model,
    sizes=(
        _size("opt-125m", 768, 12, 12, 125_239_296),
        _size("opt-1.3b", 2048, 24, 32, 1_315_758_080),
        _size("opt-2.7b", 2560, 32, 32, 2_651_596_800),
        _size("opt-6.7b", 4096, 32, 32, 6_658_473_984),
        _size("opt-13b", 5120, 40, 40, 12_853_473_280),
        _size("opt-30b", 7168, 48, 56, 29_974_540_288),
    ),
    refused="word_embed_proj_dim other than hidden_size (opt-350m)",
)
