"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv:2407.10671): biases on queries, keys and values."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import llama_like, rope
from gpt_jax.interop.family import Allowed, Facts, Family, Size, usual_heads
from gpt_jax.interop.layouts import llama_table


def kinds(facts: Facts) -> list[str]:
    """Kinds of all layers by `use_sliding_window` and `max_window_layers`, the older keys."""
    n, slides = facts["num_hidden_layers"], facts.get("use_sliding_window", False)
    first = facts.get("max_window_layers", 28) if slides else n
    return ["dense"] * min(first, n) + ["banded"] * max(0, n - first)


def read_windows(facts: Facts) -> dict[str, Any]:
    if not facts.get("use_sliding_window", False):  # as in `transformers`: no window, then
        return {}
    return llama_like.windows(facts, kinds(facts))


def write_windows(config: ModelConfig) -> dict[str, Any]:
    slides = "banded" in config.layer_pattern
    return llama_like.write_windows(config) | {"use_sliding_window": slides}


def read(facts: Facts) -> dict[str, Any]:
    return llama_like.read(facts) | read_windows(facts) | {"bias": True, "biases": ("qkv",)}


def write(config: ModelConfig) -> dict[str, Any]:
    return llama_like.write(config, without=("head_dim",)) | write_windows(config)


def carries(config: ModelConfig) -> Allowed:
    return llama_like.carries(
        config,
        bias=(True,),
        biases=(("qkv",),),
        **usual_heads(config),
        **llama_like.any_windows(config),
    )


def _size(
    name: str,
    width: int,
    hidden: int,
    layers: int,
    heads: tuple[int, int],
    n: int,
    vocab: int = 151936,
    tied: bool = False,
) -> Size:
    shape = llama_like.shape(vocab, width, hidden, layers, heads, 32768, tied)
    return Size(name, shape | {"rope_theta": 1_000_000.0}, n)


ENTRY = Family(
    name="qwen2",
    summary="Qwen2, Qwen2.5",
    architecture="Qwen2ForCausalLM",
    carries=carries,
    read=read,
    write=write,
    table=llama_table,
    sizes=(
        _size("Qwen2.5-0.5B", 896, 4864, 24, (14, 2), 494_032_768, tied=True),
        _size("Qwen2.5-1.5B", 1536, 8960, 28, (12, 2), 1_543_714_304, tied=True),
        _size("Qwen2.5-3B", 2048, 11008, 36, (16, 2), 3_085_938_688, tied=True),
        _size("Qwen2.5-7B", 3584, 18944, 28, (28, 4), 7_615_616_512, vocab=152064),
        _size("Qwen2.5-14B", 5120, 13824, 48, (40, 8), 14_770_033_664, vocab=152064),
        _size("Qwen2.5-32B", 5120, 27648, 64, (40, 8), 32_763_876_352, vocab=152064),
        _size("Qwen2.5-72B", 8192, 29568, 80, (64, 8), 72_706_203_648, vocab=152064),
    ),
    refused=rope.REFUSED,
)
