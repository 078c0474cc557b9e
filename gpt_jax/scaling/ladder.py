"""Ladders of GPT shapes: which model a parameter count means.

Must not import jax.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Literal, get_args

from gpt_jax.config import ModelConfig
from gpt_jax.cost.flops import count_parameters

ASPECT_RATIO = 64
"""Width per layer: GPT-2 124M's 768 / 12, and inside the flat optimum of Kaplan et al., Fig. 5."""
HEAD_SIZE = 64
DEEPEST = 400
GPT2 = ModelConfig()
COUNTED = (
    *("seq_len", "vocab_multiple", "position", "scores", "bias", "biases", "norm", "norm_gain"),
    *("norm_position", "final_norm", "embedding_norm", "activation", "qk_norm", "qk_norm_over"),
    *("parallel_block", "parallel_norms", "tied_embeddings", "n_experts", "n_experts_per_token"),
)
"""Settings besides sizes that decide how many parameters a model has."""

SizeConvention = Literal["n_params", "n_params_non_embedding", "n_params_matmul"]
"""How parameters are counted: see `gpt_jax.cost.flops.ParameterCounts`."""


@dataclasses.dataclass(frozen=True)
class Rung:
    """A model of some depth, width 64 L with L heads of 64."""

    n_layers: int
    d_model: int
    n_heads: int
    n_params: int
    vocab_size: int


def count(model: ModelConfig, convention: SizeConvention) -> int:
    """Parameters of a model under a convention; ValueError for an unknown one."""
    counts = count_parameters(model)
    match convention:
        case "n_params":
            return counts.n_params
        case "n_params_non_embedding":
            return counts.n_params_non_embedding
        case "n_params_matmul":
            return counts.n_params_matmul
    raise ValueError(
        f"parameter convention '{convention}' is unknown; allowed: "
        f"{', '.join(get_args(SizeConvention))}"
    )


def shape(model: ModelConfig, n_layers: int, d_model: int, head_size: int) -> ModelConfig:
    """`model` in another depth and width, with as many heads of head_size as fill the width."""
    return dataclasses.replace(
        model,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=d_model // head_size,
        head_size=None,
    )


def nearest(
    models: Iterable[ModelConfig], n_params: float, convention: SizeConvention
) -> ModelConfig:
    """The model whose parameter count is nearest by ratio, the first of several."""
    return min(models, key=lambda model: ratio(count(model, convention), n_params))


def settings_of(model: ModelConfig) -> str:
    """The settings besides sizes that decide how many parameters a model has, where they are not
    GPT-2's, as JSON: the column `model_settings` of runs.csv."""
    values = {name: vars(model)[name] for name in COUNTED}
    return json.dumps({k: v for k, v in values.items() if v != vars(GPT2)[k]}, sort_keys=True)


def with_settings(settings: str, vocab_size: int) -> ModelConfig:
    """A model of these settings (`settings_of`); its sizes are GPT-2's."""
    return ModelConfig(**json.loads(settings), vocab_size=vocab_size)


def nearest_rung(
    n_params: float, convention: SizeConvention = "n_params", base: ModelConfig = GPT2
) -> Rung:
    """The rung whose parameter count is nearest by ratio; base: its settings besides sizes."""
    ladder = (shape(base, L, ASPECT_RATIO * L, HEAD_SIZE) for L in range(1, DEEPEST))
    best = nearest(ladder, n_params, convention)
    size = count(best, convention)
    return Rung(best.n_layers, best.d_model, best.n_heads, size, base.vocab_size)


def ratio(a: float, b: float) -> float:
    """The larger divided by the smaller."""
    return max(a / b, b / a)
