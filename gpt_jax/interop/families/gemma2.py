"""Gemma 2 (Gemma team 2024, arXiv:2408.00118): norms before and after sub-blocks, soft caps,
every other layer local."""

import functools
from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.config.entries import SCORES
from gpt_jax.interop import llama_like
from gpt_jax.interop.families import gemma
from gpt_jax.interop.family import Allowed, Facts, Family, Size
from gpt_jax.interop.layouts import GEMMA2_NORMS, llama_table
from gpt_jax.interop.llama_like import ATTENTION_BIAS


def read(facts: Facts) -> dict[str, Any]:
    n = facts["num_hidden_layers"]
    kinds = ["dense" if i % 2 else "banded" for i in range(n)]
    return {
        **read_shared(facts, capped=True),
        **llama_like.windows(facts, kinds),
    }


def read_shared(facts: Facts, capped: bool) -> dict[str, Any]:
    """Fields that Gemma 2 and 3 share; capped: whether a file without the keys means soft caps."""
    caps = (50.0, 30.0) if capped else (None, None)
    return {
        **gemma.read_shared(facts, "hidden_activation"),
        "norm_position": "sandwich",
        "score_divisor": facts.get("query_pre_attn_scalar", 256) ** 0.5,
        **_soft_cap(facts.get("attn_logit_softcapping", caps[0])),
        "logit_soft_cap": facts.get("final_logit_softcapping", caps[1]),
    }


def _soft_cap(cap: float | None) -> dict[str, Any]:
    return {} if cap is None else {"scores": ("soft_cap",), "options": {"soft_cap": {"cap": cap}}}


def _cap_of(config: ModelConfig) -> float | None:
    """The soft cap of attention scores."""
    if "soft_cap" not in config.scores:
        return None
    cap: float = config.options_of(SCORES.find("soft_cap")).cap
    return cap


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config, "hidden_activation", biases=ATTENTION_BIAS) | {
        **llama_like.write_windows(config),
        "query_pre_attn_scalar": _squared(config.score_divisor or config.d_head**0.5),
        "attn_logit_softcapping": _cap_of(config),
        "final_logit_softcapping": config.logit_soft_cap,
    }


def _squared(divisor: float) -> int | float:
    """The number whose square root the divisor is: whole, where it is within rounding."""
    square = divisor**2
    return round(square) if round(square) ** 0.5 == divisor else square


def carried_shared(config: ModelConfig, **free: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    return gemma.carried_shared(
        config,
        norm_position=("sandwich",),
        score_divisor=(config.score_divisor,),
        scores=((), ("soft_cap",)),
        options=({}, _soft_cap(_cap_of(config)).get("options", {})),
        logit_soft_cap=(config.logit_soft_cap,),
        **llama_like.any_windows(config),
        **free,
    )


def carries(config: ModelConfig) -> Allowed:
    return carried_shared(config)


table = functools.partial(llama_table, norms=GEMMA2_NORMS)
LARGE = gemma.shape(4608, 36864, 46, (32, 16)) | {"head_dim": 128}

ENTRY = Family(
    name="gemma2",
    summary="Gemma 2",
    architecture="Gemma2ForCausalLM",
    carries=carries,
    fixed=gemma.FIXED,
    read=read,
    write=write,
    table=table,
    end_names=gemma.ENDS,
    default_ids=gemma.IDS,
    sizes=(
        Size("gemma-2-2b", gemma.shape(2304, 9216, 26, (8, 4)), 2_614_341_888),
        Size("gemma-2-9b", gemma.shape(3584, 14336, 42, (16, 8)), 9_241_705_984),
        Size("gemma-2-27b", LARGE, 27_227_128_320),
    ),
    refused=gemma.REFUSED,
)
