"""Mixtral (Jiang et al. 2024, arXiv:2401.04088): Mistral with experts."""

import functools
from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.families import mistral
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import llama_table

EXPERTS = {"gate": "w1", "up": "w3", "down": "w2"}


def read(facts: Facts) -> dict[str, Any]:
    shared = llama_like.read(facts, epsilon=1e-5, theta=1_000_000.0)
    window = {} if facts.get("sliding_window") is None else mistral.read_window(facts)
    return shared | window | read_experts(facts, "num_local_experts", (8, 2), True)


def read_experts(
    facts: Facts, key: str, defaults: tuple[int, int], normalized: bool
) -> dict[str, Any]:
    """Experts by a family's key; defaults: their number, and how many a token is sent to, where
    the file has none.

    Raises ValueError for a single expert a token whose gate is divided by itself: ours keeps its
    probability.
    """
    chosen = facts.get("num_experts_per_tok", defaults[1])
    other = "num_experts" if key == "num_local_experts" else "num_local_experts"
    if chosen == 1 and normalized:
        raise ValueError(
            "num_experts_per_tok = 1 with gates that are normalised (always 1) is not computed "
            "here; allowed: 2 or more"
        )
    return {
        "n_experts": facts.get(key, facts.get(other, defaults[0])),
        "n_experts_per_token": chosen,
        "expert_gates": "normalized" if normalized else "plain",
    }


def carried_experts(config: ModelConfig, *gates: str) -> dict[str, tuple[Any, ...]]:
    """Allowed experts: any number without a capacity, with gates of these kinds."""
    several = config.n_experts_per_token > 1 or config.expert_gates == "plain"
    return {
        "n_experts": (config.n_experts,) if config.n_experts else ("a number",),
        "n_experts_per_token": (config.n_experts_per_token,) if several else ("2 or more",),
        "expert_gates": gates,
        "expert_capacity_factor": (None,),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config) | {
        "sliding_window": mistral.written_window(config),
        "num_local_experts": config.n_experts,
        "num_experts_per_tok": config.n_experts_per_token,
    }


def carries(config: ModelConfig) -> Allowed:
    window, experts = mistral.carried_window(config), carried_experts(config, "normalized")
    return llama_like.carries(config, **window, **experts)


LARGE = {"hidden_size": 6144, "intermediate_size": 16384, "num_hidden_layers": 56}
LARGE |= {"num_attention_heads": 48, "vocab_size": 32768}

ENTRY = Family(
    name="mixtral",
    summary="Mixtral",
    architecture="MixtralForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=functools.partial(llama_table, experts=EXPERTS, mlp="block_sparse_moe"),
    end_names=llama_like.ENDS,
    default_ids=llama_like.IDS,
    sizes=(
        Size("Mixtral-8x7B-v0.1", mistral.SHAPE, 46_702_792_704),
        Size("Mixtral-8x22B-v0.1", mistral.SHAPE | LARGE, 140_630_071_296),
    ),
    refused=f"one expert a token; {rope.REFUSED}",
)
