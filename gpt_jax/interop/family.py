"""A family of published models: config.json against `ModelConfig`, and where weights are.

`gpt_jax/interop/families/` holds one file for each `model_type`, imported when it is asked for.
What a family cannot carry is refused by name. Must not import jax.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from gpt_jax.config import ModelConfig, overrides, wording
from gpt_jax.config.entries import Entry, Table
from gpt_jax.interop.names import Tensor

Facts = Mapping[str, Any]
"""A config.json."""
Allowed = Mapping[str, tuple[Any, ...]]
"""Field of ModelConfig, or key of config.json -> the values it may have."""


@dataclasses.dataclass(frozen=True)
class Size:
    """A published model: the keys of config.json that decide shapes, and its parameters; written
    down by hand."""

    name: str
    facts: Facts
    n_params: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family(Entry):
    """One `model_type`; the entry's name is the same with _ for -."""

    architecture: str
    """The class of `transformers` that generates text."""
    carries: Callable[[ModelConfig], Allowed]
    """The fields that are not free."""
    fixed: Allowed = dataclasses.field(default_factory=dict)
    """Keys of config.json that change what is computed, and where it is what we compute; a key
    that is not there has the first value."""
    read: Callable[[Facts], dict[str, Any]]
    """config.json -> fields of ModelConfig. Raises KeyError for a key that is missing."""
    write: Callable[[ModelConfig], dict[str, Any]]
    table: Callable[[ModelConfig, str], list[Tensor]]
    """(config, prefix) -> where the weights are; the first tensor is the token embedding."""
    prefix: str = "model."
    """Prefix of the body's weight names in `transformers`; GPT's releases leave it out."""
    end_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Special tokens of the family's tokenizer class, where a folder names none."""
    default_ids: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Ids of config.json where the file has none."""
    unused: Callable[[ModelConfig], int] = lambda config: 0
    """Parameters that published numbers count and no token uses."""
    sizes: tuple[Size, ...] = ()
    """Published models whose number of parameters ours equals, with the unused ones."""
    refused: str = ""
    """Settings of the family's config.json that are refused, for the table of families."""

    @property
    def model_type(self) -> str:
        return TYPES.get(self.name, self.name)


FAMILIES: Table[Family] = Table("model_type", "gpt_jax.interop.families")

TYPES = {"openai_gpt": "openai-gpt"}
"""Name -> model_type, where a module cannot have the same."""

PREFERRED = ("gpt2", "openai_gpt", "llama", "qwen2", "qwen3", "mistral")
"""Families in the order in which they are asked whether they carry a config; the others follow."""

SIZE_FIELDS = (
    "vocab_size",
    "vocab_multiple",
    "seq_len",
    "n_layers",
    "d_model",
    "n_heads",
    "n_kv_heads",
    "head_size",
    "ffn_size",
    "window",
)
TRAINING_FIELDS = (
    "dropout_embedding",
    "dropout_residual",
    "dropout_attention",
    "init_std",
    "init_matrices",
    "init_residual",
    "base_d_model",
    "base_n_layers",
    "base_head_size",
)
"""Fields that do not change what a trained model computes, under the standard parametrization."""


def find_family(model_type: str) -> Family:
    """The family of a config.json's model_type. Raises ValueError, with those there are."""
    for name in FAMILIES.names():
        if TYPES.get(name, name) == model_type:
            return FAMILIES.find(name)
    raise ValueError(
        f"model_type = {model_type}; allowed: {', '.join(model_types())} (another architecture "
        "cannot be imported)"
    )


def model_types() -> list[str]:
    """Every model_type that is read."""
    return [TYPES.get(name, name) for name in FAMILIES.names()]


def carried(config: ModelConfig, **free: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    """Allowed values of every field: sizes and what only training uses are free, `free` as given,
    and all others at their default. The pattern of layers, if not given, is of dense ones."""
    allowed: dict[str, tuple[Any, ...]] = {
        field.name: (getattr(DEFAULT, field.name),)
        for field in dataclasses.fields(ModelConfig)
        if field.name not in SIZE_FIELDS + TRAINING_FIELDS
    }
    allowed["layer_pattern"] = (("dense",) * len(config.layer_pattern),)
    return allowed | free


DEFAULT = ModelConfig()


def usual_heads(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    """Allowed sizes of heads where config.json has none: D / N."""
    return {"d_head": (config.d_model // config.n_heads,)}


def refuse_differences(what: str, allowed: Allowed, config: ModelConfig) -> None:
    """Raises ValueError naming the first field whose value is not allowed."""
    for sentence in differences(allowed, config):
        raise ValueError(f"{what} need {sentence}")


def differences(allowed: Allowed, config: ModelConfig) -> list[str]:
    """Fields of a config with a value that is not allowed: 'norm = layernorm; the config has
    rmsnorm'."""
    return [
        f"{name} = {' or '.join(map(wording.show, values))}; the config has "
        f"{wording.show(getattr(config, name))}"
        for name, values in allowed.items()
        if getattr(config, name) not in values
    ]


def family_of_config(config: ModelConfig, asked_first: str = "") -> Family:
    """The family that carries a config.

    asked_first: a model_type that is taken if it does, such as the one a model was imported from.

    Raises ValueError if none does, with what keeps the nearest one from it.
    """
    rest = [name for name in FAMILIES.names() if name not in PREFERRED]
    order = sorted([*PREFERRED, *rest], key=lambda name: TYPES.get(name, name) != asked_first)
    found = {name: differences(FAMILIES.find(name).carries(config), config) for name in order}
    name = min(found, key=lambda name: len(found[name]))
    nearest = FAMILIES.find(name)
    if found[name]:
        raise ValueError(
            "no Hugging Face format here carries this model; the nearest, "
            f"{nearest.model_type}, needs model." + " and model.".join(found[name])
        )
    return nearest


def read_config(facts: Facts, where: str) -> tuple[Family, ModelConfig]:
    """The family and our config of a config.json; `where` names it in messages.

    Raises ValueError for an unknown model_type, a missing key, or a setting that we do not compute.
    """
    try:
        family = find_family(str(facts.get("model_type")))
        for key, values in family.fixed.items():
            if facts.get(key, values[0]) not in values:
                raise ValueError(
                    f"{key} = {wording.show(facts[key])} is not computed here; allowed: "
                    f"{' or '.join(map(wording.show, values))}"
                )
        return family, overrides.from_dict({"model": family.read(facts)}).model
    except KeyError as error:
        raise ValueError(f"{where} has no {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def known(facts: Facts, key: str, default: str, names: Mapping[str, str]) -> str:
    """Our name of a choice that config.json makes. Raises ValueError for one not computed here."""
    name = facts.get(key, default)
    if name not in names:
        raise ValueError(f"{key} = {name} is not computed here; allowed: {', '.join(names)}")
    return names[name]


def named(ours: str, names: Mapping[str, str]) -> str:
    """Their name of a choice of ours: the first."""
    return next(theirs for theirs, our in names.items() if our == ours)


def choices(names: Mapping[str, str]) -> tuple[str, ...]:
    """Our names, each once."""
    return tuple(dict.fromkeys(names.values()))
