"""GPT-2 (Radford et al. 2019), with the scores that CRFM's runs scale by layer."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import gpt_like
from gpt_jax.interop.family import Allowed, Facts, Family, Size, carried, choices, known, named
from gpt_jax.interop.gpt_like import ACTIVATIONS
from gpt_jax.interop.layouts import gpt2_table


def read(facts: Facts) -> dict[str, Any]:
    return gpt_like.read(facts, dropout=0.1) | {
        "ffn_size": facts.get("n_inner"),
        "activation": known(facts, "activation_function", "gelu_new", ACTIVATIONS),
        "tied_embeddings": facts.get("tie_word_embeddings", True),
        "score_divisor": None if facts.get("scale_attn_weights", True) else 1.0,
        "scores_over_layer": facts.get("scale_attn_by_inverse_layer_idx", False),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    return gpt_like.write(config) | {
        "n_inner": config.ffn_size,
        "activation_function": named(config.activation, ACTIVATIONS),
        "scale_attn_weights": config.score_divisor is None,
        "scale_attn_by_inverse_layer_idx": config.scores_over_layer,
    }


def carries(config: ModelConfig) -> Allowed:
    return carried(
        config,
        norm_epsilon=(config.norm_epsilon,),
        tied_embeddings=(True, False),
        activation=choices(ACTIVATIONS),
        score_divisor=(None, 1.0),
        scores_over_layer=(True, False),
        **gpt_like.whole_heads(config),
    )


def _size(name: str, width: int, layers: int, heads: int, n_params: int) -> Size:
    shape = {"n_embd": width, "n_layer": layers, "n_head": heads}
    return Size(name, {"vocab_size": 50257, "n_positions": 1024} | shape, n_params)


ENTRY = Family(
    name="gpt2",
    summary="GPT-2, and CRFM's runs of it",
    architecture="GPT2LMHeadModel",
    carries=carries,
    fixed={"add_cross_attention": (False,)},
    read=read,
    write=write,
    table=lambda config, prefix: gpt2_table(config, "in_out", prefix),
    prefix="transformer.",
    end_names=gpt_like.ENDS,
    default_ids={"bos_token_id": 50256, "eos_token_id": 50256},
    sizes=(
        _size("gpt2", 768, 12, 12, 124_439_808),
        _size("gpt2-medium", 1024, 24, 16, 354_823_168),
        _size("gpt2-large", 1280, 36, 20, 774_030_080),
        _size("gpt2-xl", 1600, 48, 25, 1_557_611_200),
    ),
    refused="cross-attention",
)
