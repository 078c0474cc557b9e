"""Closed forms: parameters, floating-point operations (FLOPs) and bytes of state of a config.

Published counts follow different conventions, and a scaling law fitted under one is wrong under
another; here each has a name and its source. A product of [m, k] and [k, n] counts 2 m k n FLOPs.
Tensor dims: T query position, S key position, D width, N heads, K kv heads, H head size, F hidden,
V vocab, L layers, E experts. Plain arithmetic: must not import jax.
"""

import dataclasses
import math
from typing import Literal, get_args

from gpt_jax.config import ModelConfig
from gpt_jax.config.entries import POSITIONS, SCORES

Shape = tuple[int, ...]

Convention = Literal[
    "exact",
    "exact_causal",
    "6nd",
    "kaplan",
    "kaplan_table_1",
    "chinchilla",
    "palm",
    "nanogpt",
    "deepseek",
]
"""How FLOPs of a forward pass over one sequence are counted:

- exact: every matmul of the model: projections, head (padded vocabulary), and scores and values
  over the whole T x S square, in a banded layer T x min(W, T). The reference attention kernel
  executes these, and in banded layers the rest of the square besides. Embedding look-ups are
  no matmuls, and elementwise operations are not counted.
- exact_causal: the part of these whose result is used: a query meets only the keys that it
  sees (causal, or in the window of a banded layer), and only the unpadded vocabulary. No
  kernel needs less; the blockwise ones execute a little more.
- 6nd: 2 N a token (6 N with the backward pass), N all parameters. Hoffmann et al. 2022
  (Chinchilla), section 3.3; Brown et al. 2020 (GPT-3), Table D.1, which multiplies N as
  rounded there (1,320M for the 1,316M of GPT-3 XL).
- kaplan: 2 N a token, N the non-embedding parameters. Kaplan et al. 2020, C = 6 N B S.
- kaplan_table_1: 2 N + 2 L T d_attn a token, N the kernels of the blocks alone. Kaplan et
  al. 2020, Table 1: half of what `exact` counts for scores and values.
- chinchilla: Hoffmann et al. 2022, appendix F, as printed: the products of `exact`, the
  embedding as if it were one, and 3 FLOPs for each softmax entry. Their own Table A4 is
  met only without embedding, head and softmax (`gpt-jax table chinchilla-table-a4`).
- palm: 2 N + 4 L N H T a token (6 N + 12 L H Q T with the backward pass in the notation of
  Chowdhery et al. 2022, appendix B), N all parameters: the FLOPs of MFU. Of a banded layer a
  query meets the keys of its window, min(W, T) of them, for T: this formula and the next two
  were written for dense layers.
- nanogpt: as palm, with N all parameters but learned position embeddings: `estimate_mfu` of
  nanoGPT (https://github.com/karpathy/nanoGPT, model.py).
- deepseek: M of DeepSeek-AI 2024 (arXiv:2401.02954, equation 2), the training FLOPs of a token
  without embeddings and head: 72 L D^2 + 12 L D T for MLPs of 4 D, here from the blocks'
  kernels. Their model scale M is `training_flops_per_token`, their C = M D `training_flops`.
"""


# ---------------------------------------------------------------------------------------------
# Parameters


def parameter_shapes(model: ModelConfig) -> dict[str, Shape]:
    """{path: shape} of every parameter, with the vocabulary padded: the tree the model creates.

    A stack of layers has a leading dim of L / P, P being the length of model.layer_pattern.
    """
    D, V = model.d_model, model.padded_vocab_size
    shapes: dict[str, Shape] = {"embedding/tokens": (V, D)}
    rows = position_rows(model)
    if rows:
        shapes["embedding/positions"] = (rows, D)
    if model.embedding_norm:
        shapes |= _norm("embedding/norm", model)
    period = len(model.layer_pattern)
    for member in range(period):
        for name, shape in _block_shapes(model).items():
            shapes[f"blocks/{member}/{name}"] = (model.n_layers // period, *shape)
    if model.final_norm:
        shapes |= _norm("final_norm", model)
    if not model.tied_embeddings:
        shapes["head/kernel"] = (D, V)
    return shapes


def _block_shapes(model: ModelConfig) -> dict[str, Shape]:
    """{path: shape} of one layer."""
    D, N, K = model.d_model, model.n_heads, model.kv_heads
    H, F = model.d_head, model.d_ff
    shapes: dict[str, Shape] = {}
    for name in norm_names(model):
        shapes |= _norm(name, model)
    qkv, mlp = model.has_bias("qkv"), model.has_bias("mlp")
    shapes |= _projection("attention/query", (D,), (N, H), qkv)
    shapes |= _projection("attention/key", (D,), (K, H), qkv)
    shapes |= _projection("attention/value", (D,), (K, H), qkv)
    shapes |= _projection("attention/out", (N, H), (D,), model.has_bias("out"))
    shapes |= _score_shapes(model)
    if model.qk_norm and model.norm_gain != "none":
        if model.qk_norm_over == "head":
            shapes |= {"attention/query_norm/scale": (H,), "attention/key_norm/scale": (H,)}
        else:
            shapes["attention/query_heads_norm/scale"] = (N, H)
            shapes["attention/key_heads_norm/scale"] = (K, H)
    if model.n_experts is not None:
        return shapes | _expert_shapes(model, model.n_experts)
    shapes |= _projection("mlp/up", (D,), (F,), mlp)
    if model.gated:
        shapes |= _projection("mlp/gate", (D,), (F,), mlp)
    return shapes | _projection("mlp/down", (F,), (D,), mlp)


def norm_names(model: ModelConfig) -> tuple[str, ...]:
    """The norms of a layer's residual stream and sub-blocks."""
    before: tuple[str, ...] = ("attention_norm", "mlp_norm")
    after = ("attention_out_norm", "mlp_out_norm")
    if model.parallel_block and model.parallel_norms == "shared":
        before = before[:1]
    if model.norm_position == "output":
        return after
    return before + after if model.norm_position == "sandwich" else before


def position_rows(model: ModelConfig) -> int:
    """Rows of the learned table of positions; 0 without one."""
    entry = POSITIONS.find(model.position)
    return entry.table(model, model.options_of(entry)) if entry.table is not None else 0


def _score_shapes(model: ModelConfig) -> dict[str, Shape]:
    """{path: shape} of the parameters of changes of attention scores, one layer's."""
    shapes: dict[str, Shape] = {}
    for name in (*POSITIONS.find(model.position).scores, *model.scores):
        entry = SCORES.find(name)
        for parameter, made in entry.parameters(model, model.options_of(entry)).items():
            shapes[f"attention/scores_{name}/{parameter}"] = made.shape
    return shapes


def _expert_shapes(model: ModelConfig, E: int) -> dict[str, Shape]:
    D, F = model.d_model, model.d_ff
    shapes: dict[str, Shape] = {"mlp/router/kernel": (D, E)}
    for name, inputs, outputs in (("up", D, F), ("gate", D, F), ("down", F, D)):
        if name == "gate" and not model.gated:
            continue
        shapes[f"mlp/experts/{name}/kernel"] = (E, inputs, outputs)
        if model.has_bias("mlp"):
            shapes[f"mlp/experts/{name}/bias"] = (E, outputs)
    return shapes


def _norm(name: str, model: ModelConfig) -> dict[str, Shape]:
    if model.norm_gain == "none":
        return {}
    shapes: dict[str, Shape] = {f"{name}/scale": (model.d_model,)}
    if model.has_bias("norm"):
        shapes[f"{name}/bias"] = (model.d_model,)
    return shapes


def _projection(name: str, inputs: Shape, outputs: Shape, bias: bool) -> dict[str, Shape]:
    shapes = {f"{name}/kernel": inputs + outputs}
    if bias:
        shapes[f"{name}/bias"] = outputs
    return shapes


@dataclasses.dataclass(frozen=True)
class ParameterCounts:
    """Parameters by part, each counted once, without the rows that pad the vocabulary."""

    token_embedding: int
    position_embedding: int
    attention: int
    """Projections and their biases."""
    mlp: int
    norms: int
    head: int
    """The output projection, if it is not the token embedding."""

    n_params_matmul: int
    """Weights that a token is multiplied with: projections and the head, tied or not; of experts,
    those of the ones that it is sent to."""
    n_params_padded: int
    """All parameters as stored, the rows that pad the vocabulary included."""
    n_params_inactive: int = 0
    """Parameters of the experts that a token is not sent to."""
    n_params_experts: int = 0
    """Parameters of all experts."""

    @property
    def n_params(self) -> int:
        """All parameters: N of GPT-2, GPT-3 (Table D.1), Chinchilla and PaLM."""
        embeddings = self.token_embedding + self.position_embedding + self.head
        return embeddings + self.n_params_non_embedding

    @property
    def n_params_active(self) -> int:
        """Those that compute one token: all, but for experts that it is not sent to."""
        return self.n_params - self.n_params_inactive

    @property
    def n_params_non_embedding(self) -> int:
        """All but what grows with vocabulary or context: embeddings and an untied head.

        N of Kaplan et al. 2020 (section 1.3), who leave out biases and norms besides, about 0.1%.
        """
        return self.attention + self.mlp + self.norms


def count_parameters(model: ModelConfig) -> ParameterCounts:
    """How many parameters a model has, in all and by part."""
    padded = model.padded_vocab_size - model.vocab_size
    padding = padded * model.d_model
    parts = dict.fromkeys(
        ("token_embedding", "position_embedding", "attention", "mlp", "norms", "head"), 0
    )
    kernels = inactive = experts = 0
    for path, shape in parameter_shapes(model).items():
        size = math.prod(shape)
        unused = _inactive(model, path, size)
        parts[_part(path)] += size
        inactive += unused
        experts += size if "/experts/" in path else 0
        if _is_block_kernel(path):
            kernels += size - unused
    n_params_padded = sum(parts.values())
    parts["token_embedding"] -= padding
    if not model.tied_embeddings:
        parts["head"] -= padding
    return ParameterCounts(
        **parts,
        n_params_matmul=kernels + model.vocab_size * model.d_model,
        n_params_padded=n_params_padded,
        n_params_inactive=inactive,
        n_params_experts=experts,
    )


def _inactive(model: ModelConfig, path: str, size: int) -> int:
    """Number of a parameter's values that belong to experts a token is not routed to."""
    if model.n_experts is None or "/experts/" not in path:
        return 0
    return size // model.n_experts * (model.n_experts - model.n_experts_per_token)


def _part(path: str) -> str:
    match path.split("/"):
        case ["embedding", "tokens"]:
            return "token_embedding"
        case ["embedding", "positions"]:
            return "position_embedding"
        case ["head", _]:
            return "head"
        case [*_, owner, _] if owner.endswith("norm"):
            return "norms"
        case ["blocks", _, part, *_]:
            return part
    raise AssertionError(path)


def _is_block_kernel(path: str) -> bool:
    return path.startswith("blocks/") and path.endswith("/kernel")


# ---------------------------------------------------------------------------------------------
# FLOPs


def forward_flops_per_sequence(model: ModelConfig, convention: Convention = "exact") -> int:
    """FLOPs of a forward pass over one sequence of model.seq_len tokens, by a `Convention`.

    Of a mixture of experts, N counts the K experts that a token is sent to, in every convention.

    Raises ValueError for an unknown convention.
    """
    counts, T, D = count_parameters(model), model.seq_len, model.d_model
    kernels = counts.n_params_matmul - model.vocab_size * D
    # Weights that a token meets, but for what a capacity leaves of those of experts.
    n_all, n_blocks = counts.n_params_active, counts.n_params_non_embedding
    n_blocks -= counts.n_params_inactive
    executed, used = _expert_products(model)
    attention_width, L = model.n_heads * model.d_head, model.n_layers
    match convention:
        case "exact":
            scores = 4 * attention_width * squares(model)
            return 2 * T * (kernels + model.padded_vocab_size * D) + executed + scores
        case "exact_causal":
            products = 2 * T * counts.n_params_matmul + used
            return products + 4 * attention_width * visible_pairs(model)
        case "6nd":
            return 2 * T * n_all
        case "kaplan":
            return 2 * T * n_blocks
        case "kaplan_table_1":
            return 2 * T * kernels + 2 * L * T**2 * attention_width
        case "chinchilla":
            softmax = 3 * model.n_heads * L * T**2
            products = 2 * T * (kernels + 2 * model.vocab_size * D)
            return products + 4 * attention_width * L * T**2 + softmax
        case "palm":
            return 2 * T * n_all + 4 * attention_width * squares(model)
        case "nanogpt":
            n_counted = n_all - counts.position_embedding
            return 2 * T * n_counted + 4 * attention_width * squares(model)
        case "deepseek":
            return 2 * T * kernels + 4 * attention_width * squares(model)
    raise ValueError(
        f"FLOPs convention '{convention}' is unknown; allowed: {', '.join(get_args(Convention))}"
    )


def mlp_rows_per_token(model: ModelConfig) -> float:
    """Rows that MLPs compute for a token: 1; of experts K, or what their capacities add up to."""
    if model.n_experts is None:
        return 1
    if model.expert_capacity is None:
        return model.n_experts_per_token
    return model.n_experts * model.expert_capacity / model.seq_len


def _expert_products(model: ModelConfig) -> tuple[int, int]:
    """(executed, used): FLOPs of experts beyond K of them a token, in one sequence; used ones are
    fewer where choices certainly find no place.

    Dropless, every choice is computed. With a capacity, each expert computes its C places, filled
    or not.
    """
    if model.n_experts is None or model.expert_capacity is None:
        return 0, 0
    choices = model.n_experts_per_token * model.seq_len
    places = model.n_experts * model.expert_capacity
    n_kernels = 3 if model.gated else 2
    each = 2 * model.n_layers * n_kernels * model.d_model * model.d_ff
    return each * (places - choices), each * (min(places, choices) - choices)


def visible_pairs(model: ModelConfig) -> int:
    """Pairs of a query and a key that it sees, in one sequence, summed over layers."""
    T = model.seq_len
    pairs = 0
    for kind in model.layer_pattern:
        W = min(model.window_of(kind) or T, T)
        pairs += W * (W + 1) // 2 + (T - W) * W
    return model.n_layers // len(model.layer_pattern) * pairs


def squares(model: ModelConfig) -> int:
    """Pairs of a query and a key in one sequence, summed over layers, as conventions count them
    that do not halve for causality: T x T, in a banded layer T x its window."""
    T = model.seq_len
    keys = sum(min(model.window_of(kind) or T, T) for kind in model.layer_pattern)
    return model.n_layers // len(model.layer_pattern) * T * keys


def training_flops_per_sequence(model: ModelConfig, convention: Convention = "exact") -> int:
    """FLOPs of a forward and backward pass over one sequence.

    Three times the forward pass: the backward pass has two products for each of its products, for
    the gradients of its two operands. What rematerialization repeats is not counted.
    """
    return 3 * forward_flops_per_sequence(model, convention)


def training_flops_per_token(model: ModelConfig, convention: Convention = "exact") -> float:
    """FLOPs of a forward and backward pass for each token of a sequence of model.seq_len."""
    return training_flops_per_sequence(model, convention) / model.seq_len


def training_flops(model: ModelConfig, n_tokens: int, convention: Convention = "exact") -> float:
    """FLOPs of a training run over n_tokens tokens (`Timetable.n_tokens`)."""
    return training_flops_per_sequence(model, convention) * n_tokens / model.seq_len
