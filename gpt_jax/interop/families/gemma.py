"""Gemma (Gemma team 2024, arXiv:2403.08295): gains of 1 + w, scaled embeddings, GeGLU."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table
from gpt_jax.interop.llama_like import ATTENTION_BIAS

FIXED = {"use_bidirectional_attention": (None, False)}
REFUSED = "attention in both directions"
ENDS = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
IDS = {"bos_token_id": 2, "eos_token_id": 1}


def read_shared(facts: Facts, activation: str) -> dict[str, Any]:
    """Fields that the three generations share; activation: the key that is read."""
    return {
        **llama_like.read(
            {"head_dim": 256, **facts}, tied=True, activation=(activation, "gelu_pytorch_tanh")
        ),
        **llama_like.biases(facts, ATTENTION_BIAS),
        "norm_gain": "one_plus",
        "embedding_multiplier": facts["hidden_size"] ** 0.5,
    }


def carried_shared(config: ModelConfig, **free: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    return llama_like.carries(
        config,
        norm_gain=("one_plus",),
        embedding_multiplier=(config.d_model**0.5,),
        activation=("geglu",),
        **llama_like.bias_choices(config, ATTENTION_BIAS),
        **free,
    )


def read(facts: Facts) -> dict[str, Any]:
    """The earliest files say hidden_act = gelu and mean its tanh form; hidden_activation, where it
    is there, goes first, as in `transformers`."""
    name = facts.get("hidden_activation") or facts.get("hidden_act", "gelu_pytorch_tanh")
    name = "gelu_pytorch_tanh" if name == "gelu" else name
    return read_shared({**facts, "hidden_act": name}, "hidden_act")


def write(config: ModelConfig) -> dict[str, Any]:
    written = llama_like.write(config, biases=ATTENTION_BIAS)
    return written | {"hidden_activation": written["hidden_act"]}


def carries(config: ModelConfig) -> Allowed:
    return carried_shared(config)


def shape(
    width: int, hidden: int, layers: int, heads: tuple[int, int], vocab: int = 256000
) -> dict[str, Any]:
    return llama_like.shape(vocab, width, hidden, layers, heads, 8192)


ENTRY = Family(
    name="gemma",
    summary="Gemma 1",
    architecture="GemmaForCausalLM",
    carries=carries,
    fixed=FIXED,
    read=read,
    write=write,
    table=llama_table,
    end_names=ENDS,
    default_ids=IDS,
    sizes=(
        Size("gemma-2b", shape(2048, 16384, 18, (8, 1)), 2_506_172_416),
        Size("gemma-7b", shape(3072, 24576, 28, (16, 16)), 8_537_680_896),
    ),
    refused=REFUSED,
)
