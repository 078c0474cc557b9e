"""Keys of config.json that GPT-1 and GPT-2 share. Must not import jax."""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop.family import Facts, usual_heads

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu_squared",
}
"""Their names of activations without a gate -> ours."""
END = "<|endoftext|>"
ENDS = {"bos_token": END, "eos_token": END, "unk_token": END}
"""Special tokens of GPT-2's vocabulary and of those made like it."""


def read(facts: Facts, dropout: float) -> dict[str, Any]:
    """Fields of ModelConfig; dropout: where the file has none."""
    return {
        "vocab_size": facts["vocab_size"],
        "seq_len": facts["n_positions"],
        "n_layers": facts["n_layer"],
        "n_heads": facts["n_head"],
        "d_model": facts["n_embd"],
        "norm_epsilon": facts.get("layer_norm_epsilon", 1e-5),
        "dropout_embedding": facts.get("embd_pdrop", dropout),
        "dropout_residual": facts.get("resid_pdrop", dropout),
        "dropout_attention": facts.get("attn_pdrop", dropout),
        "init_std": facts.get("initializer_range", 0.02),
    }


def write(config: ModelConfig) -> dict[str, Any]:
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


def whole_heads(config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    """Allowed sizes of heads where config.json has none: as many keys as queries, D / N each."""
    return {"kv_heads": (config.n_heads,), **usual_heads(config)}
