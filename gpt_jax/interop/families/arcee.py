"""Arcee's AFM-4.5B: Llama's form but for an MLP without a gate, by default a squared ReLU."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.families.llama import BIASES
from gpt_jax.interop.family import Allowed, Facts, Family, Size, choices
from gpt_jax.interop.gpt_like import ACTIVATIONS
from gpt_jax.interop.layouts import llama_table

SHAPE = llama_like.shape(128004, 2560, 18432, 36, (20, 4), 65536)


def read(facts: Facts) -> dict[str, Any]:
    activation = ("hidden_act", "relu2")
    found = llama_like.read(facts, 1e-5, activation=activation, activations=ACTIVATIONS)
    return found | llama_like.biases(facts, BIASES)


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config, biases=BIASES, activations=ACTIVATIONS)


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config, activation=choices(ACTIVATIONS), **llama_like.bias_choices(config, BIASES)
    )


ENTRY = Family(
    name="arcee",
    summary="Arcee AFM, and the quickstart's form",
    architecture="ArceeForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    end_names=llama_like.ENDS,
    default_ids={"bos_token_id": 128000, "eos_token_id": 128001},
    sizes=(Size("AFM-4.5B", SHAPE | {"head_dim": 128}, 4_619_184_640),),
    refused=rope.REFUSED,
)
