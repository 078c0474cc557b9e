"""Where GPT-1, GPT-2 and Llama checkpoints keep each of our parameters: tables of names.

Must not import jax.
"""

from collections.abc import Iterator
from typing import Literal

from gpt_jax.config import ModelConfig
from gpt_jax.config.entries import NORMS
from gpt_jax.interop.names import Part, Tensor

Matrices = Literal["out_in", "in_out"]
"""How a projection is stored: as torch's Linear (nanoGPT, Llama), or as the releases' Conv1D."""


def gpt2_table(config: ModelConfig, matrices: Matrices, prefix: str) -> list[Tensor]:
    """GPT-2's names; rows of the embedding for `config.padded_vocab_size` ids."""
    width = config.d_model
    table = [
        _table_of(f"{prefix}wte.weight", "embedding/tokens", config.padded_vocab_size, width),
        _table_of(f"{prefix}wpe.weight", "embedding/positions", config.seq_len, width),
    ]
    for layer in range(config.n_layers):
        table += _gpt_block(config, f"{prefix}h.{layer}.", layer, matrices == "out_in")
    return [*table, *_norm(f"{prefix}ln_f", "final_norm", config, None), *_head(config)]


def gpt1_table(config: ModelConfig, prefix: str) -> list[Tensor]:
    """GPT-1's names, as `transformers` writes them: Conv1D storage, no final norm."""
    width = config.d_model
    tokens = f"{prefix}tokens_embed.weight"
    table = [
        _table_of(tokens, "embedding/tokens", config.padded_vocab_size, width),
        _table_of(f"{prefix}positions_embed.weight", "embedding/positions", config.seq_len, width),
    ]
    for layer in range(config.n_layers):
        table += _gpt_block(config, f"{prefix}h.{layer}.", layer, transposed=False)
    return [*table, *_head(config)]


def llama_table(config: ModelConfig, prefix: str) -> list[Tensor]:
    """Llama's names as `transformers` writes them, rotary dims paired i with i + H/2, as ours.

    (The files that Meta distributes pair 2i with 2i + 1; `transformers` reordered them.)
    """
    width, hidden, size = config.d_model, config.d_ff, config.d_head
    table = [
        _table_of(
            f"{prefix}embed_tokens.weight", "embedding/tokens", config.padded_vocab_size, width
        )
    ]
    for layer in range(config.n_layers):
        name = f"{prefix}layers.{layer}."
        attention = {
            "q_proj": ("query", (width,), (config.n_heads, size)),
            "k_proj": ("key", (width,), (config.kv_heads, size)),
            "v_proj": ("value", (width,), (config.kv_heads, size)),
            "o_proj": ("out", (config.n_heads, size), (width,)),
        }
        mlp = {
            "gate_proj": ("gate", (width,), (hidden,)),
            "up_proj": ("up", (width,), (hidden,)),
            "down_proj": ("down", (hidden,), (width,)),
        }
        table += _norm(f"{name}input_layernorm", "attention_norm", config, layer)
        table += _norm(f"{name}post_attention_layernorm", "mlp_norm", config, layer)
        for theirs, (ours, n_in, n_out) in attention.items():
            parts = (Part(f"attention/{ours}", n_in, n_out),)
            table += _projection(f"{name}self_attn.{theirs}", parts, config, True, layer)
        for theirs, (ours, n_in, n_out) in mlp.items():
            parts = (Part(f"mlp/{ours}", n_in, n_out),)
            table += _projection(f"{name}mlp.{theirs}", parts, config, True, layer)
    return [*table, *_norm(f"{prefix}norm", "final_norm", config, None), *_head(config)]


def _gpt_block(config: ModelConfig, name: str, layer: int, transposed: bool) -> Iterator[Tensor]:
    """One layer of GPT-1 or GPT-2: queries, keys and values in one matrix."""
    width, hidden = (config.d_model,), (config.d_ff,)
    heads = (config.n_heads, config.d_head)
    qkv = tuple(Part(f"attention/{x}", width, heads) for x in ("query", "key", "value"))
    yield from _norm(f"{name}ln_1", "attention_norm", config, layer)
    yield from _norm(f"{name}ln_2", "mlp_norm", config, layer)
    for theirs, parts in {
        "attn.c_attn": qkv,
        "attn.c_proj": (Part("attention/out", heads, width),),
        "mlp.c_fc": (Part("mlp/up", width, hidden),),
        "mlp.c_proj": (Part("mlp/down", hidden, width),),
    }.items():
        yield from _projection(f"{name}{theirs}", parts, config, transposed, layer)


def _projection(
    name: str, parts: tuple[Part, ...], config: ModelConfig, transposed: bool, layer: int
) -> Iterator[Tensor]:
    kernels = tuple(Part(f"{p.path}/kernel", p.inputs, p.outputs) for p in parts)
    yield Tensor(f"{name}.weight", kernels, transposed, layer)
    if config.bias:
        biases = tuple(Part(f"{p.path}/bias", (), p.outputs) for p in parts)
        yield Tensor(f"{name}.bias", biases, layer=layer)


def _norm(name: str, path: str, config: ModelConfig, layer: int | None) -> Iterator[Tensor]:
    width = (config.d_model,)
    yield Tensor(f"{name}.weight", (Part(f"{path}/scale", (), width),), layer=layer)
    if config.bias and NORMS.find(config.norm).has_bias:
        yield Tensor(f"{name}.bias", (Part(f"{path}/bias", (), width),), layer=layer)


def _head(config: ModelConfig) -> Iterator[Tensor]:
    if not config.tied_embeddings:
        kernel = Part("head/kernel", (config.d_model,), (config.padded_vocab_size,))
        yield Tensor("lm_head.weight", (kernel,), transposed=True)


def _table_of(name: str, path: str, rows: int, width: int) -> Tensor:
    return Tensor(name, (Part(path, (rows,), (width,)),))
