"""Gemma 3, text alone (Gemma team 2025, arXiv:2503.19786): local layers with a base of their own,
queries and keys normalised per head, no soft caps."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.families import gemma, gemma2
from gpt_jax.interop.family import Allowed, Facts, Family, Size

LOCAL_BASE, GLOBAL_BASE = 10_000.0, 1_000_000.0


def read(facts: Facts) -> dict[str, Any]:
    n, every = facts["num_hidden_layers"], facts.get("sliding_window_pattern", 6)
    kinds = ["banded" if (i + 1) % every else "dense" for i in range(n)]
    found = {
        **gemma2.read_shared(facts, capped=False),
        **llama_like.windows(facts, kinds),
        **rope.read(facts, GLOBAL_BASE),
        "qk_norm": True,
    }
    if "banded" not in found["layer_pattern"]:
        return found
    return found | {"rotary_base_banded": _local_base(facts)}


def _local_base(facts: Facts) -> float:
    """Raises ValueError for local layers with scaled positions."""
    parameters = facts.get("rope_parameters") or {}
    local = parameters.get("sliding_attention") or {}
    kind = local.get("rope_type", "default")
    if kind != "default":
        raise ValueError(f"rope_type = {kind} in sliding_attention is not computed here")
    return float(local.get("rope_theta") or facts.get("rope_local_base_freq", LOCAL_BASE))


def write(config: ModelConfig) -> dict[str, Any]:
    written = gemma2.write(config)
    local = config.rotary_base_banded or config.rotary_base
    by_kind = {
        "full_attention": rope.described(config),
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }
    written.pop("rope_scaling", None)
    return written | {"rope_parameters": by_kind, "rope_local_base_freq": local}


def carries(config: ModelConfig) -> Allowed:
    slides = "banded" in config.layer_pattern
    scaled = config.rotary_scaling != "none"
    base = config.rotary_base_banded
    allowed: tuple[float | None, ...] = (base,)
    if slides and scaled and base is None:  # local layers are not scaled there
        allowed = (LOCAL_BASE,)
    return gemma2.carried_shared(config, qk_norm=(True,), rotary_base_banded=allowed)


VOCABULARY = 262144

ENTRY = Family(
    name="gemma3_text",
    summary="Gemma 3, text",
    architecture="Gemma3ForCausalLM",
    carries=carries,
    fixed=gemma.FIXED,
    read=read,
    write=write,
    table=gemma2.table,
    end_names=gemma.ENDS,
    default_ids=gemma.IDS,
    sizes=(
        Size("gemma-3-270m", gemma.shape(640, 2048, 18, (4, 1), VOCABULARY), 268_098_176),
        Size("gemma-3-1b", gemma.shape(1152, 6912, 26, (4, 1), VOCABULARY), 999_885_952),
    ),
    refused=f"{gemma.REFUSED}; images (model_type gemma3, Gemma 3 of 4B and more)",
)
