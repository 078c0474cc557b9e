"""Rotary positions in config.json: `rope_theta` and `rope_scaling`, or `rope_parameters`.

Must not import jax.
"""

import math
from collections.abc import Mapping
from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.config.model import ROTARY_TURNS
from gpt_jax.interop.family import Facts

REFUSED = "rope_type dynamic and longrope"
"""Published scalings that are refused, for the table of families."""
SCALED = ("none", "linear", "llama3", "yarn")
"""Values of rotary_scaling that a config.json can name."""

FIELDS = (
    "rotary_scaling",
    "rotary_factor",
    "rotary_trained_len",
    "rotary_turns",
    "rotary_amplitude",
)


def free(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    """Allowed values of a family that carries scaled rotary positions: any."""
    amplitude = (config.rotary_amplitude,) if config.rotary_scaling == "yarn" else (None,)
    return {
        "position": ("rotary",),
        "rotary_base": (config.rotary_base,),
        **{name: (getattr(config, name),) for name in FIELDS},
        "rotary_amplitude": amplitude,
    }


def read(facts: Facts, theta: float = 10_000.0, kind: str = "full_attention") -> dict[str, Any]:
    """Fields of ModelConfig; theta: the family's base, where the file has none.

    kind: of the layers whose positions are read, where the file has them by kind.

    Raises ValueError for a scaling that is not computed here.
    """
    rope = parameters(facts, kind)
    found: dict[str, Any] = {
        "rotary_base": float(rope.get("rope_theta") or facts.get("rope_theta") or theta)
    }
    name = rope.get("rope_type") or rope.get("type") or "default"
    if name == "default":
        return found
    if name not in SCALED[1:]:
        raise ValueError(
            f"rope_type = {name} is not computed here; allowed: default, {', '.join(SCALED[1:])}"
        )
    found |= {"rotary_scaling": name, "rotary_factor": float(rope["factor"])}
    if name == "linear":
        return found
    trained = rope.get("original_max_position_embeddings", facts.get("max_position_embeddings"))
    found["rotary_trained_len"] = int(trained)
    if name == "llama3":
        turns = rope["low_freq_factor"], rope["high_freq_factor"]
    else:
        if not rope.get("truncate", True):
            raise ValueError("truncate = false (yarn) is not computed here; allowed: true")
        turns = rope.get("beta_slow") or 1, rope.get("beta_fast") or 32
        found["rotary_amplitude"] = _amplitude(rope)
    given = tuple(map(float, turns))
    return found if given == ROTARY_TURNS[name] else found | {"rotary_turns": given}


def parameters(facts: Facts, kind: str = "full_attention") -> Mapping[str, Any]:
    """The settings of one kind of layer, from whichever key has them; {} = none."""
    rope: Mapping[str, Any] = facts.get("rope_scaling") or facts.get("rope_parameters") or {}
    of_kind = rope.get(kind)
    return of_kind if isinstance(of_kind, Mapping) else rope


def partial(facts: Facts, key: str, default: float) -> float:
    """The share of a head that is rotated."""
    found = facts.get(key, parameters(facts).get("partial_rotary_factor"))
    return default if found is None else float(found)


def rotated(share: float, head_size: int) -> int | None:
    """Dims that are rotated, as `transformers` rounds; None = all."""
    size = int(head_size * share)
    return None if size == head_size else size


def write(config: ModelConfig, share: float | None = None) -> dict[str, Any]:
    """Today's key and, where positions are scaled, the earlier one besides.

    share: of a head that is rotated, where the family has partial rotary positions.
    """
    rope = described(config)
    if share is not None:
        rope["partial_rotary_factor"] = share
    scaled = {"rope_scaling": rope} if config.rotary_scaling != "none" else {}
    return {"rope_theta": config.rotary_base, "rope_parameters": rope} | scaled


def described(config: ModelConfig) -> dict[str, Any]:
    """`rope_parameters` of the layers that are not banded, or of all."""
    rope: dict[str, Any] = {"rope_theta": config.rotary_base, "rope_type": "default"}
    if config.rotary_scaling == "none":
        return rope
    rope |= {"rope_type": config.rotary_scaling, "factor": config.rotary_factor}
    if config.rotary_scaling == "linear":
        return rope
    rope["original_max_position_embeddings"] = config.rotary_trained_len
    if config.rotary_scaling == "llama3":
        low, high = config.rotary_turns or ROTARY_TURNS["llama3"]
        return rope | {"low_freq_factor": low, "high_freq_factor": high}
    slow, fast = config.rotary_turns or ROTARY_TURNS["yarn"]
    rope |= {"beta_slow": slow, "beta_fast": fast}
    if config.rotary_amplitude is not None:
        rope["attention_factor"] = config.rotary_amplitude
    return rope


def _amplitude(rope: Mapping[str, Any]) -> float | None:
    """YaRN's factor of rotated queries and keys, if it is not the default one."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    scales = rope.get("mscale"), rope.get("mscale_all_dim")
    if not all(scales):
        return None
    over, under = (0.1 * float(s or 0) * math.log(rope["factor"]) + 1 for s in scales)
    return over / under
