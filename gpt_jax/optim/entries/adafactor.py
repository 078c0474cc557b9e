"""Adafactor: a factored second moment, updates relative to the parameters. Must not import jax at
its top.
"""

import math
from typing import TYPE_CHECKING, Any

from gpt_jax.optim.entry import FLOAT32, Build, OptimizerEntry, Shape
from gpt_jax.optim.roles import as_matrix, n_stacked

if TYPE_CHECKING:
    import optax

MIN_DIM = 128
"""Optax factors the second moment of a matrix if both of its dims have at least this size."""


def direction(build: Build) -> "optax.GradientTransformation":
    """Adafactor with its update clipping at 1, and momentum as in PaLM; each layer by itself."""
    import optax

    from gpt_jax.optim.layers import each_layer_alone

    single = optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
        optax.ema(build.numbers.b1, debias=False),
    )
    return each_layer_alone(single, build.params_like)


def state_bytes(path: str, shape: Shape, options: Any) -> int:
    """Momentum, and row and column means of each matrix by layer and expert; else one number a
    parameter. Placeholders of one element are left out."""
    n_matrices, dims = math.prod(shape[: n_stacked(path)]), as_matrix(path, shape)
    factored = len(dims) == 2 and min(dims) >= MIN_DIM
    second = n_matrices * (sum(dims) if factored else math.prod(dims))
    return FLOAT32 * (math.prod(shape) + second)


ENTRY = OptimizerEntry(
    name="adafactor",
    summary="factored second moment, updates relative to the parameters",
    source="Shazeer and Stern 2018, arXiv:1804.04235; momentum as in PaLM",
    direction=direction,
    state_bytes=state_bytes,
    mup=None,
)
