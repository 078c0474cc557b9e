"""Weights as stacks of matrices [G, I, O]: what is rounded, and what is pruned."""

import math
import re
from typing import Any

from gpt_jax.optim.roles import input_dims

TABLE = "embedding/tokens"
KERNEL = re.compile(r"blocks/.*/kernel|head/kernel")


def is_kernel(path: str) -> bool:
    """Whether a path is that of a product's weights: of a layer, or of an untied head."""
    return bool(KERNEL.fullmatch(path))


def shape_as_matrices(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(groups of layers, inputs, outputs) of a kernel, or of the table of token embeddings, whose
    inputs are the width: that is what logits contract."""
    if path == TABLE:
        return 1, shape[1], shape[0]
    if path == "head/kernel":
        return 1, *shape
    n = 1 + input_dims(path)
    return shape[0], math.prod(shape[1:n]), math.prod(shape[n:])


def as_matrices(path: str, x: Any) -> Any:
    """[G, I, O] of an array of numpy's or jax's."""
    shape = shape_as_matrices(path, x.shape)
    return x.T.reshape(shape) if path == TABLE else x.reshape(shape)


def as_stored(path: str, x_GIO: Any, shape: tuple[int, ...]) -> Any:
    """The weights in the shape that the model has them in."""
    return x_GIO.reshape(shape[::-1]).T if path == TABLE else x_GIO.reshape(shape)
