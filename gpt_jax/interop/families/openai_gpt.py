"""GPT-1 (Radford et al. 2018): post-norm, without a final norm."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import gpt_like
from gpt_jax.interop.family import Allowed, Facts, Family, Size, carried, choices, known, named
from gpt_jax.interop.layouts import gpt1_table

ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu"}
"""OpenAIGPTModel's "gelu" is the tanh form, as in OpenAI's code."""


def read(facts: Facts) -> dict[str, Any]:
    return gpt_like.read(facts, dropout=0.1) | {
        "norm_position": "post",
        "final_norm": False,
        "init_residual": "plain",
        "activation": known(facts, "afn", "gelu", ACTIVATIONS),
        "tied_embeddings": facts.get("tie_word_embeddings", True),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    return gpt_like.write(config) | {"afn": named(config.activation, ACTIVATIONS)}


def carries(config: ModelConfig) -> Allowed:
    return carried(
        config,
        norm_position=("post",),
        norm_epsilon=(config.norm_epsilon,),
        final_norm=(False,),
        tied_embeddings=(True, False),
        activation=choices(ACTIVATIONS),
        d_ff=(4 * config.d_model,),
        **gpt_like.whole_heads(config),
    )


SHAPE = {"vocab_size": 40478, "n_positions": 512, "n_layer": 12, "n_head": 12, "n_embd": 768}

ENTRY = Family(
    name="openai_gpt",
    summary="GPT-1",
    architecture="OpenAIGPTLMHeadModel",
    carries=carries,
    read=read,
    write=write,
    table=gpt1_table,
    prefix="transformer.",
    end_names={"unk_token": "<unk>"},
    sizes=(Size("openai-gpt", SHAPE, 116_534_784),),
    refused="activations but gelu and relu",
)
