"""Where checkpoints keep each of our parameters: tables of names, by the forms that families share.

Must not import jax.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from gpt_jax.config import ModelConfig
from gpt_jax.cost.flops import norm_names
from gpt_jax.interop.names import Part, Tensor

Matrices = Literal["out_in", "in_out"]
"""How a projection is stored: as torch's Linear (nanoGPT, Llama), or as the releases' Conv1D."""

Names = Mapping[str, str]
"""Our name of a module -> theirs."""

LLAMA_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
OLMO2_NORMS = {
    "attention_out_norm": "post_attention_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}
GEMMA2_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}
EXPERTS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def gpt2_table(config: ModelConfig, matrices: Matrices, prefix: str) -> list[Tensor]:
    """GPT-2's names; rows of the embedding for `config.padded_vocab_size` ids."""
    table = [tokens(config, f"{prefix}wte"), positions(config, f"{prefix}wpe")]
    for layer in range(config.n_layers):
        table += _gpt_block(config, f"{prefix}h.{layer}.", layer, matrices == "out_in")
    return [*table, *norm(f"{prefix}ln_f", "final_norm", config), *head(config)]


def gpt1_table(config: ModelConfig, prefix: str) -> list[Tensor]:
    """GPT-1's names, as `transformers` writes them: Conv1D storage, no final norm."""
    table = [
        tokens(config, f"{prefix}tokens_embed"),
        positions(config, f"{prefix}positions_embed"),
    ]
    for layer in range(config.n_layers):
        table += _gpt_block(config, f"{prefix}h.{layer}.", layer, transposed=False)
    return [*table, *head(config)]


def llama_table(
    config: ModelConfig,
    prefix: str,
    norms: Names = LLAMA_NORMS,
    out: str = "o_proj",
    experts: Names = EXPERTS,
    mlp: str = "mlp",
) -> list[Tensor]:
    """Llama's names as `transformers` writes them, rotary dims paired i with i + H/2, as ours, and
    those of the families that follow it.

    (The files that Meta distributes pair 2i with 2i + 1; `transformers` reordered them.)
    """
    table = [tokens(config, f"{prefix}embed_tokens")]
    for layer in range(config.n_layers):
        name = f"{prefix}layers.{layer}."
        for ours in norm_names(config):
            table += norm(f"{name}{norms[ours]}", ours, config, layer)
        table += attention(config, f"{name}self_attn.", layer, out)
        if config.n_experts is not None:
            table += expert_mlp(config, f"{name}{mlp}.", layer, experts)
        elif config.gated:
            table += gated_mlp(config, f"{name}{mlp}.", layer)
        else:
            up, down = f"{name}{mlp}.up_proj", f"{name}{mlp}.down_proj"
            table += plain_mlp(config, up, down, layer)
    return [*table, *norm(f"{prefix}norm", "final_norm", config), *head(config)]


def attention(config: ModelConfig, name: str, layer: int, out: str = "o_proj") -> Iterator[Tensor]:
    """Projections of their own for queries, keys, values and the output; norms of heads."""
    width, size = (config.d_model,), config.d_head
    heads, kv_heads = (config.n_heads, size), (config.kv_heads, size)
    for theirs, ours, shapes, part in (
        ("q_proj", "query", (width, heads), "qkv"),
        ("k_proj", "key", (width, kv_heads), "qkv"),
        ("v_proj", "value", (width, kv_heads), "qkv"),
        (out, "out", (heads, width), "out"),
    ):
        bias = config.has_bias("out" if part == "out" else "qkv")
        yield from projection(f"{name}{theirs}", [Part(f"attention/{ours}", *shapes)], bias, layer)
    if config.qk_norm and config.norm_gain != "none":
        of = "norm" if config.qk_norm_over == "head" else "heads_norm"
        shapes_of = {"query": heads, "key": kv_heads}
        for ours, shape in shapes_of.items():
            size_of = (size,) if of == "norm" else shape
            scale = Part(f"attention/{ours}_{of}/scale", (), size_of)
            yield Tensor(f"{name}{ours[0]}_norm.weight", (scale,), layer=layer)


def gated_mlp(config: ModelConfig, name: str, layer: int) -> Iterator[Tensor]:
    width, hidden, bias = (config.d_model,), (config.d_ff,), config.has_bias("mlp")
    yield from projection(f"{name}gate_proj", [Part("mlp/gate", width, hidden)], bias, layer)
    yield from projection(f"{name}up_proj", [Part("mlp/up", width, hidden)], bias, layer)
    yield from projection(f"{name}down_proj", [Part("mlp/down", hidden, width)], bias, layer)


def plain_mlp(config: ModelConfig, up: str, down: str, layer: int) -> Iterator[Tensor]:
    """An MLP without a gate, stored as torch's Linear."""
    width, hidden, bias = (config.d_model,), (config.d_ff,), config.has_bias("mlp")
    yield from projection(up, [Part("mlp/up", width, hidden)], bias, layer)
    yield from projection(down, [Part("mlp/down", hidden, width)], bias, layer)


def expert_mlp(config: ModelConfig, name: str, layer: int, experts: Names) -> Iterator[Tensor]:
    """A router, and each expert's matrices in tensors of their own."""
    width, hidden, n_experts = (config.d_model,), (config.d_ff,), config.n_experts or 0
    router = Part("mlp/router", width, (n_experts,))
    yield from projection(f"{name}gate", [router], False, layer)
    for i in range(n_experts):
        for ours, theirs in experts.items():
            shapes = (hidden, width) if ours == "down" else (width, hidden)
            part = Part(f"mlp/experts/{ours}", *shapes, expert=i)
            yield from projection(f"{name}experts.{i}.{theirs}", [part], False, layer)


def fused_block(config: ModelConfig, name: str, attention: str, layer: int) -> Iterator[Tensor]:
    """One layer of GPT-NeoX or BLOOM: queries, keys and values in one matrix, head by head.

    attention: their name of it.
    """
    width, heads = (config.d_model,), (config.n_heads, config.d_head)
    qkv = [Part(f"attention/{x}", width, heads) for x in ("query", "key", "value")]
    out = [Part("attention/out", heads, width)]
    yield from norm(f"{name}input_layernorm", "attention_norm", config, layer)
    yield from norm(f"{name}post_attention_layernorm", "mlp_norm", config, layer)
    fused = f"{name}{attention}.query_key_value"
    yield from projection(fused, qkv, config.has_bias("qkv"), layer, by_head=True)
    yield from projection(f"{name}{attention}.dense", out, config.has_bias("out"), layer)
    yield from plain_mlp(config, f"{name}mlp.dense_h_to_4h", f"{name}mlp.dense_4h_to_h", layer)


def _gpt_block(config: ModelConfig, name: str, layer: int, transposed: bool) -> Iterator[Tensor]:
    """One layer of GPT-1 or GPT-2: queries, keys and values in one matrix."""
    width, hidden = (config.d_model,), (config.d_ff,)
    heads = (config.n_heads, config.d_head)
    qkv = [Part(f"attention/{x}", width, heads) for x in ("query", "key", "value")]
    yield from norm(f"{name}ln_1", "attention_norm", config, layer)
    yield from norm(f"{name}ln_2", "mlp_norm", config, layer)
    for theirs, parts in {
        "attn.c_attn": qkv,
        "attn.c_proj": [Part("attention/out", heads, width)],
        "mlp.c_fc": [Part("mlp/up", width, hidden)],
        "mlp.c_proj": [Part("mlp/down", hidden, width)],
    }.items():
        yield from projection(f"{name}{theirs}", parts, config.bias, layer, transposed)


def projection(
    name: str,
    parts: list[Part],
    bias: bool,
    layer: int,
    transposed: bool = True,
    by_head: bool = False,
) -> Iterator[Tensor]:
    """A kernel of one or several of our projections, and its bias if it has one."""
    kernels, biases = [], []
    for part in parts:
        kernels.append(Part(f"{part.path}/kernel", part.inputs, part.outputs, part.expert))
        biases.append(Part(f"{part.path}/bias", (), part.outputs, part.expert))
    yield Tensor(f"{name}.weight", tuple(kernels), transposed, layer, by_head)
    if bias:
        yield Tensor(f"{name}.bias", tuple(biases), layer=layer, by_head=by_head)


def norm(name: str, path: str, config: ModelConfig, layer: int | None = None) -> Iterator[Tensor]:
    """Gain and bias of a norm over the width, as far as it has them."""
    width = (config.d_model,)
    if config.norm_gain != "none":
        yield Tensor(f"{name}.weight", (Part(f"{path}/scale", (), width),), layer=layer)
    if config.has_bias("norm"):
        yield Tensor(f"{name}.bias", (Part(f"{path}/bias", (), width),), layer=layer)


def head(config: ModelConfig, name: str = "lm_head", also: str = "") -> Iterator[Tensor]:
    """The untied output projection; also: another name that it may have in a folder."""
    if not config.tied_embeddings:
        kernel = Part("head/kernel", (config.d_model,), (config.padded_vocab_size,))
        other = (f"{also}.weight",) if also else ()
        yield Tensor(f"{name}.weight", (kernel,), transposed=True, aliases=other)


def tokens(config: ModelConfig, name: str) -> Tensor:
    return _rows(f"{name}.weight", "embedding/tokens", config.padded_vocab_size, config)


def positions(config: ModelConfig, name: str, spare_rows: int = 0) -> Tensor:
    return _rows(f"{name}.weight", "embedding/positions", config.seq_len, config, spare_rows)


def _rows(name: str, path: str, rows: int, config: ModelConfig, spare_rows: int = 0) -> Tensor:
    return Tensor(name, (Part(path, (rows,), (config.d_model,)),), spare_rows=spare_rows)
