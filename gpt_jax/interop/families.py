"""The Hugging Face model families that we read and write: config.json against ModelConfig.

A family is what its `model_type` can carry, how its config.json is read and written, and where its
weights are. What a family cannot carry is refused by name. Must not import jax.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from gpt_jax.config import ModelConfig, overrides
from gpt_jax.interop.layouts import gpt1_table, gpt2_table, llama_table
from gpt_jax.interop.names import Tensor

Facts = Mapping[str, Any]
"""A config.json."""
Allowed = Mapping[str, tuple[Any, ...]]
"""Field of ModelConfig, or key of config.json -> the values it may have."""

GPT2_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu_squared",
}
GPT1_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu"}
"""OpenAIGPTModel's "gelu" is the tanh form, as in OpenAI's code."""
LLAMA_ACTIVATIONS = {"silu": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type`."""

    architecture: str
    """The class of `transformers` that generates text."""
    carries: Callable[[ModelConfig], Allowed]
    """The fields that are not free."""
    fixed: Allowed
    """Keys of config.json that change what is computed, and where it is what we compute; a key
    that is not there has the first value."""
    read: Callable[[Facts], dict[str, Any]]
    """config.json -> fields of ModelConfig. Raises KeyError for a key that is missing."""
    write: Callable[[ModelConfig], dict[str, Any]]
    table: Callable[[ModelConfig, str], list[Tensor]]
    """(config, prefix) -> where the weights are."""
    prefix: str
    """Prefix of the body's weight names in `transformers`; GPT's releases leave it out."""


def refuse_differences(what: str, allowed: Allowed, config: ModelConfig) -> None:
    """Raises ValueError naming the first field whose value is not allowed."""
    for sentence in differences(allowed, config):
        raise ValueError(f"{what} need {sentence}")


def differences(allowed: Allowed, config: ModelConfig) -> list[str]:
    """Fields of a config with a value that is not allowed: 'norm = layernorm; the config has
    rmsnorm'."""
    return [
        f"{name} = {' or '.join(map(overrides.show, values))}; the config has "
        f"{overrides.show(getattr(config, name))}"
        for name, values in allowed.items()
        if getattr(config, name) not in values
    ]


def family_of_config(config: ModelConfig) -> str:
    """The model_type that carries a config.

    Raises ValueError if none does, with what keeps the nearest one from it.
    """
    found = {name: differences(f.carries(config), config) for name, f in FAMILIES.items()}
    nearest = min(found, key=lambda name: len(found[name]))
    if found[nearest]:
        raise ValueError(
            f"no Hugging Face format here carries this model; the nearest, {nearest}, needs model."
            + " and model.".join(found[nearest])
        )
    return nearest


def read_config(facts: Facts, where: str) -> tuple[str, ModelConfig]:
    """The model_type and our config of a config.json; `where` names it in messages.

    Raises ValueError for an unknown model_type, a missing key, or a setting that we do not compute.
    """
    model_type = facts.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(
            f"{where}: model_type = {model_type}; allowed: {', '.join(FAMILIES)} (another "
            "architecture cannot be imported)"
        )
    family = FAMILIES[model_type]
    for key, values in family.fixed.items():
        if facts.get(key, values[0]) not in values:
            raise ValueError(
                f"{where}: {key} = {overrides.show(facts[key])} is not computed here; allowed: "
                f"{' or '.join(map(overrides.show, values))}"
            )
    try:
        return model_type, overrides.from_dict({"model": family.read(facts)}).model
    except KeyError as error:
        raise ValueError(f"{where} has no {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _activation(facts: Facts, key: str, default: str, known: Mapping[str, str]) -> str:
    name = facts.get(key, default)
    if name not in known:
        raise ValueError(f"{key} = {name} is not computed here; allowed: {', '.join(known)}")
    return known[name]


def _named(activation: str, known: Mapping[str, str]) -> str:
    return next(theirs for theirs, ours in known.items() if ours == activation)


# --- GPT-2 and GPT-1 ----------------------------------------------------------------------------


def _read_gpt(facts: Facts) -> dict[str, Any]:
    """Fields of ModelConfig that GPT-1's and GPT-2's config.json have in common. Dropout is 0.1
    where the file has none."""
    return {
        "vocab_size": facts["vocab_size"],
        "seq_len": facts["n_positions"],
        "n_layers": facts["n_layer"],
        "n_heads": facts["n_head"],
        "d_model": facts["n_embd"],
        "norm_epsilon": facts.get("layer_norm_epsilon", 1e-5),
        "tied_embeddings": facts.get("tie_word_embeddings", True),
        "dropout_embedding": facts.get("embd_pdrop", 0.1),
        "dropout_residual": facts.get("resid_pdrop", 0.1),
        "dropout_attention": facts.get("attn_pdrop", 0.1),
        "init_std": facts.get("initializer_range", 0.02),
    }


def _write_gpt(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.seq_len,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_embd": config.d_model,
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.tied_embeddings,
        "embd_pdrop": config.dropout_embedding,
        "resid_pdrop": config.dropout_residual,
        "attn_pdrop": config.dropout_attention,
        "initializer_range": config.init_std,
    }


def _carries(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    """Allowed values of the fields that no family supports beyond one value."""
    return {
        "layer_pattern": (("dense",) * len(config.layer_pattern),),
        "parallel_block": (False,),
        "qk_norm": (False,),
        "scores": ((),),
        "logit_soft_cap": (None,),
        "parametrization": ("standard",),
        "n_experts": (None,),
    }


def _gpt_carries(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    return _carries(config) | {
        "norm": ("layernorm",),
        "position": ("learned",),
        "bias": (True,),
        "kv_heads": (config.n_heads,),
        "d_head": (config.d_model // config.n_heads,),
    }


def _gpt2_carries(config: ModelConfig) -> Allowed:
    return _gpt_carries(config) | {
        "norm_position": ("pre",),
        "final_norm": (True,),
        "activation": tuple(dict.fromkeys(GPT2_ACTIVATIONS.values())),
    }


def _gpt1_carries(config: ModelConfig) -> Allowed:
    return _gpt_carries(config) | {
        "norm_position": ("post",),
        "final_norm": (False,),
        "activation": tuple(GPT1_ACTIVATIONS.values()),
        "d_ff": (4 * config.d_model,),
    }


def _read_gpt2(facts: Facts) -> dict[str, Any]:
    return _read_gpt(facts) | {
        "ffn_size": facts.get("n_inner"),
        "activation": _activation(facts, "activation_function", "gelu_new", GPT2_ACTIVATIONS),
    }


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return _write_gpt(config) | {
        "n_inner": config.ffn_size,
        "activation_function": _named(config.activation, GPT2_ACTIVATIONS),
    }


def _read_gpt1(facts: Facts) -> dict[str, Any]:
    return _read_gpt(facts) | {
        "norm_position": "post",
        "final_norm": False,
        "init_residual": "plain",
        "activation": _activation(facts, "afn", "gelu", GPT1_ACTIVATIONS),
    }


def _write_gpt1(config: ModelConfig) -> dict[str, Any]:
    return _write_gpt(config) | {"afn": _named(config.activation, GPT1_ACTIVATIONS)}


# --- Llama --------------------------------------------------------------------------------------


def _llama_carries(config: ModelConfig) -> Allowed:
    return _carries(config) | {
        "norm": ("rmsnorm",),
        "norm_position": ("pre",),
        "final_norm": (True,),
        "position": ("rotary",),
        "activation": tuple(dict.fromkeys(LLAMA_ACTIVATIONS.values())),
    }


def _read_llama(facts: Facts) -> dict[str, Any]:
    biases = facts.get("attention_bias", False), facts.get("mlp_bias", False)
    if biases[0] != biases[1]:
        raise ValueError(
            f"attention_bias = {biases[0]} with mlp_bias = {biases[1]} is not computed here; "
            "allowed: both or neither"
        )
    return {
        "vocab_size": facts["vocab_size"],
        "seq_len": facts["max_position_embeddings"],
        "n_layers": facts["num_hidden_layers"],
        "n_heads": facts["num_attention_heads"],
        "n_kv_heads": facts.get("num_key_value_heads"),
        "d_model": facts["hidden_size"],
        "head_size": facts.get("head_dim"),
        "ffn_size": facts["intermediate_size"],
        "norm": "rmsnorm",
        "norm_epsilon": facts.get("rms_norm_eps", 1e-6),
        "bias": biases[0],
        "activation": _activation(facts, "hidden_act", "silu", LLAMA_ACTIVATIONS),
        "position": "rotary",
        "rotary_base": _rotary_base(facts),
        "tied_embeddings": facts.get("tie_word_embeddings", False),
        "dropout_attention": facts.get("attention_dropout", 0.0),
        "init_std": facts.get("initializer_range", 0.02),
    }


def _rotary_base(facts: Facts) -> float:
    """Rotary base, from `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5);
    10,000 where there is none. Raises ValueError for scaled rotary embeddings."""
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rope_type = {kind} is not computed here; allowed: default")
    return rope.get("rope_theta") or facts.get("rope_theta") or 10_000.0


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.seq_len,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads,
        "hidden_size": config.d_model,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "rms_norm_eps": config.norm_epsilon,
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "hidden_act": _named(config.activation, LLAMA_ACTIVATIONS),
        "rope_theta": config.rotary_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "tie_word_embeddings": config.tied_embeddings,
        "attention_dropout": config.dropout_attention,
        "initializer_range": config.init_std,
    }


FAMILIES = {
    "gpt2": Family(
        architecture="GPT2LMHeadModel",
        carries=_gpt2_carries,
        fixed={
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
        read=_read_gpt2,
        write=_write_gpt2,
        table=lambda config, prefix: gpt2_table(config, "in_out", prefix),
        prefix="transformer.",
    ),
    "openai-gpt": Family(
        architecture="OpenAIGPTLMHeadModel",
        carries=_gpt1_carries,
        fixed={},
        read=_read_gpt1,
        write=_write_gpt1,
        table=gpt1_table,
        prefix="transformer.",
    ),
    "llama": Family(
        architecture="LlamaForCausalLM",
        carries=_llama_carries,
        fixed={},
        read=_read_llama,
        write=_write_llama,
        table=llama_table,
        prefix="model.",
    ),
}
"""model_type -> family."""
