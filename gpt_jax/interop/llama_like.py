"""Keys of config.json that Llama and the families that follow it share. Must not import jax."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.config.model import Biased
from gpt_jax.interop import rope
from gpt_jax.interop.family import Facts, carried, choices, known, named

GATES = {"silu": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}
"""Their names of a gated MLP's activation -> ours."""
BiasKeys = Mapping[str, tuple[Biased, ...]]
"""Key of config.json -> the parts that have biases where it is true."""
ATTENTION_BIAS: dict[str, tuple[Biased, ...]] = {"attention_bias": ("qkv", "out")}
ENDS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
"""Special tokens of Llama's vocabulary."""
IDS = {"bos_token_id": 1, "eos_token_id": 2}
"""Ids of the special tokens of Llama's vocabulary, `ENDS`, where config.json has none."""
KINDS = {"full_attention": "dense", "sliding_attention": "banded"}
"""Their kinds of layers -> ours."""


def read(
    facts: Facts,
    epsilon: float = 1e-6,
    theta: float = 10_000.0,
    tied: bool = False,
    activation: tuple[str, str] = ("hidden_act", "silu"),
    activations: Mapping[str, str] = GATES,
) -> dict[str, Any]:
    """Fields of ModelConfig; epsilon, theta, tied: where the file has none; activation: its key,
    and the name where the file has none; activations: the names that are computed -> ours."""
    return {
        **sizes(facts),
        **rope.read(facts, theta),
        "norm": "rmsnorm",
        "norm_epsilon": facts.get("rms_norm_eps", epsilon),
        "bias": False,
        "activation": known(facts, *activation, activations),
        "position": "rotary",
        "tied_embeddings": facts.get("tie_word_embeddings", tied),
    }


def sizes(facts: Facts) -> dict[str, Any]:
    head = facts.get("head_dim")
    usual = facts["hidden_size"] // facts["num_attention_heads"]
    return {
        "vocab_size": facts["vocab_size"],
        "seq_len": facts["max_position_embeddings"],
        "n_layers": facts["num_hidden_layers"],
        "n_heads": facts["num_attention_heads"],
        "n_kv_heads": facts.get("num_key_value_heads"),
        "d_model": facts["hidden_size"],
        "head_size": None if head == usual else head,
        "ffn_size": facts["intermediate_size"],
        "dropout_attention": facts.get("attention_dropout") or 0.0,
        "init_std": facts.get("initializer_range", 0.02),
    }


def write(
    config: ModelConfig,
    activation: str = "hidden_act",
    without: Sequence[str] = (),
    biases: BiasKeys | None = None,
    activations: Mapping[str, str] = GATES,
) -> dict[str, Any]:
    """config.json; activation: its key; without: keys that the family does not have; biases: the
    keys that say whether some parts have biases; activations: their names -> ours."""
    found = {
        **write_sizes(config),
        "rms_norm_eps": config.norm_epsilon,
        activation: named(config.activation, activations),
        **rope.write(config),
        **{key: config.has_bias(parts[0]) for key, parts in (biases or {}).items()},
    }
    return {key: value for key, value in found.items() if key not in without}


def write_sizes(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.seq_len,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads,
        "hidden_size": config.d_model,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_dropout": config.dropout_attention,
        "initializer_range": config.init_std,
    }


def carries(config: ModelConfig, **free: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    """Allowed values of Llama's form, with `free` in their place."""
    llama: dict[str, tuple[Any, ...]] = {
        **rope.free(config),
        "norm": ("rmsnorm",),
        "norm_epsilon": (config.norm_epsilon,),
        "tied_embeddings": (True, False),
        "activation": choices(GATES),
        "bias": (False,),
    }
    return carried(config, **(llama | free))


def shape(
    vocab: int,
    width: int,
    hidden: int,
    layers: int,
    heads: tuple[int, int],
    seq_len: int,
    tied: bool | None = None,
) -> dict[str, Any]:
    """Keys of config.json that decide the sizes of a published model; heads: of queries, and of
    keys and values; tied: None = the file does not say."""
    ends = {} if tied is None else {"tie_word_embeddings": tied}
    return ends | {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "max_position_embeddings": seq_len,
    }


def biases(facts: Facts, keys: BiasKeys) -> dict[str, Any]:
    """Fields of ModelConfig for keys of config.json that say whether some parts have biases."""
    found = [part for key, parts in keys.items() if facts.get(key) for part in parts]
    return bias_fields(found)


def bias_fields(parts: Sequence[str], norm: str = "rmsnorm") -> dict[str, Any]:
    """bias and biases of a model with biases in these parts."""
    every = {"qkv", "out", "mlp"} | ({"norm"} if norm == "layernorm" else set())
    if not parts:
        return {"bias": False}
    return {"bias": True, "biases": None if every <= set(parts) else tuple(parts)}


def bias_choices(config: ModelConfig, keys: BiasKeys) -> dict[str, tuple[Any, ...]]:
    """Allowed bias and biases of a family whose keys each give biases to some parts or do not."""
    norm = ("norm",) if config.norm == "layernorm" else ()
    parts = ("qkv", "out", "mlp", *norm)
    has = {part: config.has_bias(part) for part in parts}
    free = {part for group in keys.values() if len({has[p] for p in group}) == 1 for part in group}
    if any(has[part] for part in parts if part not in free):
        return {"bias": (False,)}
    return {"bias": (config.bias,), "biases": (config.biases,)}


def period(kinds: Sequence[str]) -> tuple[str, ...]:
    """The shortest pattern whose repetition gives the kinds of all layers."""
    n = len(kinds)
    lengths = (p for p in range(1, n + 1) if n % p == 0)
    return tuple(next(kinds[:p] for p in lengths if list(kinds[:p]) * (n // p) == list(kinds)))


def layer_kinds(facts: Facts, otherwise: Sequence[str]) -> tuple[str, ...]:
    """The pattern of layers that `layer_types` gives; otherwise: our kinds of all layers, where
    the file does not say. Raises ValueError for kinds that are not computed here."""
    types = facts.get("layer_types")
    if types is None:
        return period(otherwise)
    for name in types:
        if name not in KINDS:
            raise ValueError(f"layer_types has {name}; computed here: {', '.join(KINDS)}")
    if len(types) != facts["num_hidden_layers"]:
        raise ValueError(
            f"layer_types has {len(types)} entries for {facts['num_hidden_layers']} layers"
        )
    return period([KINDS[name] for name in types])


def windows(facts: Facts, otherwise: Sequence[str], window: int = 4096) -> dict[str, Any]:
    """layer_pattern and window; window: where the file has none but layers that need one."""
    pattern = layer_kinds(facts, otherwise)
    if "banded" not in pattern:
        return {"layer_pattern": pattern}
    return {"layer_pattern": pattern, "window": facts.get("sliding_window", window)}


def write_windows(config: ModelConfig) -> dict[str, Any]:
    """layer_types of all layers, and the window of those that slide."""
    names = {ours: theirs for theirs, ours in KINDS.items()}
    pattern = [names[kind] for kind in config.layer_pattern]
    types = pattern * (config.n_layers // len(pattern))
    window = {} if config.window is None else {"sliding_window": config.window}
    return {"layer_types": types, **window}


def any_windows(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    """Allowed layers of a family whose `layer_types` may be dense or banded in any order."""
    found: Mapping[str, tuple[Any, ...]] = {"window": (config.window,)}
    if "nope" in config.layer_pattern:
        return dict(found)
    return {**found, "layer_pattern": (config.layer_pattern,)}
