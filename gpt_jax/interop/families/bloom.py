"""BLOOM (BigScience workshop 2022, arXiv:2211.05100): ALiBi, a norm of the embeddings."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import gpt_like, layouts, llama_like
from gpt_jax.interop.family import Allowed, Facts, Family, Size, carried
from gpt_jax.interop.names import Tensor

FORM = {"position": "alibi", "embedding_norm": True, "activation": "gelu_tanh"}
SEQ_LEN = 2048
"""Context length that BLOOM was trained with; its config.json has none that can be relied upon."""


def read(facts: Facts) -> dict[str, Any]:
    return FORM | {
        "vocab_size": facts["vocab_size"],
        "seq_len": facts.get("seq_length", SEQ_LEN),
        "n_layers": _first(facts, "n_layer", "num_hidden_layers"),
        "n_heads": _first(facts, "n_head", "num_attention_heads"),
        "d_model": _first(facts, "hidden_size", "n_embed"),
        "norm_epsilon": facts.get("layer_norm_epsilon", 1e-5),
        "tied_embeddings": facts.get("tie_word_embeddings", True),
        "dropout_residual": facts.get("hidden_dropout", 0.0),
        "dropout_attention": facts.get("attention_dropout", 0.0),
        "init_std": facts.get("initializer_range", 0.02),
    }


def _first(facts: Facts, key: str, older: str) -> int:
    """The value of a key that has had two names. Raises KeyError with today's."""
    found: int = facts[key if key in facts or older not in facts else older]
    return found


def write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "seq_length": config.seq_len,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "hidden_size": config.d_model,
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.tied_embeddings,
        "hidden_dropout": config.dropout_residual,
        "attention_dropout": config.dropout_attention,
        "initializer_range": config.init_std,
    }


def carries(config: ModelConfig) -> Allowed:
    return carried(
        config,
        **{name: (value,) for name, value in FORM.items()},
        **gpt_like.whole_heads(config),
        d_ff=(4 * config.d_model,),
        norm_epsilon=(config.norm_epsilon,),
        tied_embeddings=(True, False),
    )


def table(config: ModelConfig, prefix: str) -> list[Tensor]:
    found = [layouts.tokens(config, f"{prefix}word_embeddings")]
    found += layouts.norm(f"{prefix}word_embeddings_layernorm", "embedding/norm", config)
    for layer in range(config.n_layers):
        found += layouts.fused_block(config, f"{prefix}h.{layer}.", "self_attention", layer)
    found += layouts.norm(f"{prefix}ln_f", "final_norm", config)
    return [*found, *layouts.head(config)]


def _size(name: str, width: int, layers: int, heads: int, n: int) -> Size:
    shape = {"hidden_size": width, "n_layer": layers, "n_head": heads}
    return Size(name, {"vocab_size": 250880} | shape, n)


ENTRY = Family(
    name="bloom",
    summary="BLOOM",
    architecture="BloomForCausalLM",
    carries=carries,
    fixed={"apply_residual_connection_post_layernorm": (False,)},
    read=read,
    write=write,
    table=table,
    prefix="transformer.",
    end_names=llama_like.ENDS,
    default_ids=llama_like.IDS,
    sizes=(
        _size("bloom-560m", 1024, 24, 16, 559_214_592),
        _size("bloom-1b1", 1536, 24, 16, 1_065_314_304),
        _size("bloom-1b7", 2048, 24, 16, 1_722_408_960),
        _size("bloom-3b", 2560, 30, 32, 3_002_557_440),
        _size("bloom-7b1", 4096, 30, 32, 7_069_016_064),
        _size("bloom", 14336, 70, 112, 176_247_271_424),
    ),
    refused="apply_residual_connection_post_layernorm",
)
