"""A ladder of GPT shapes, to say which model an optimal parameter count means.

Must not import jax.
"""

from dataclasses import dataclass

from gpt_jax.config import ModelConfig
from gpt_jax.flops import count_parameters

ASPECT_RATIO = 64
"""Width per layer: GPT-2 124M's 768 / 12, and inside the flat optimum of Kaplan et al., Fig. 5."""
HEAD_SIZE = 64
DEEPEST = 400


@dataclass(frozen=True)
class Rung:
    """A GPT-2 of some depth, width 64 L with L heads of 64, vocabulary 50257 and context 1024."""

    n_layers: int
    d_model: int
    n_heads: int
    n_params: int


def nearest_rung(n_params: float, *, embedding: bool = True) -> Rung:
    """The rung whose parameter count is nearest by ratio.

    embedding: whether n_params counts the embeddings (Chinchilla) or not (Kaplan).
    """
    best: Rung | None = None
    for n_layers in range(1, DEEPEST):
        width = ASPECT_RATIO * n_layers
        counts = count_parameters(
            ModelConfig(n_layers=n_layers, d_model=width, n_heads=width // HEAD_SIZE)
        )
        size = counts.n_params if embedding else counts.n_params_non_embedding
        rung = Rung(n_layers, width, width // HEAD_SIZE, size)
        if best is not None and _ratio(size, n_params) > _ratio(best.n_params, n_params):
            break
        best = rung
    assert best is not None
    return best


def _ratio(a: float, b: float) -> float:
    return max(a / b, b / a)
