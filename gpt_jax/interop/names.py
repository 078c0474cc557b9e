"""A table of named tensors: one description by which weights are read and written.

A checkpoint's tensor is one of our arrays, or several side by side, laid down as a matrix. Reading
and writing go by the same rows, so what is written is read back to the same bits.

Must not import jax: trees of numpy arrays.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.config import ModelConfig
from gpt_jax.models.trees import unflatten

Weights = Mapping[str, NDArray[Any]]
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """One of our arrays: its path in the tree, without the stacked layer dim, and its dims."""

    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def matrix(self) -> tuple[int, ...]:
        """[inputs, outputs]; only [outputs] where there are no inputs (biases and gains)."""
        columns = math.prod(self.outputs)
        return (math.prod(self.inputs), columns) if self.inputs else (columns,)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint: parts side by side along the outputs, perhaps transposed."""

    name: str
    parts: tuple[Part, ...]
    transposed: bool = False
    """Stored [outputs, inputs], as torch's Linear does."""
    layer: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        rows = self.parts[0].matrix[:-1]
        shape = (*rows, sum(part.matrix[-1] for part in self.parts))
        return shape[::-1] if self.transposed else shape


def read(table: Sequence[Tensor], weights: Weights, config: ModelConfig) -> Tree:
    """Our parameter tree, float32, of weights that hold every tensor of the table.

    Raises ValueError naming a tensor that is missing, misshapen, or has no place in the model.
    """
    missing = [tensor.name for tensor in table if tensor.name not in weights]
    if missing:
        raise ValueError(f"the weights have no {missing[0]}")
    left = sorted(weights.keys() - {tensor.name for tensor in table})
    if left:
        raise ValueError(f"the config has no place for the weights {', '.join(left)}")
    flat: dict[str, Any] = {}
    for tensor in table:
        for part, array in zip(tensor.parts, _split(tensor, weights), strict=True):
            if tensor.layer is None:
                flat[part.path] = array
            else:
                period = len(config.layer_pattern)
                group, member = divmod(tensor.layer, period)
                path = f"blocks/{member}/{part.path}"
                stacked = (config.n_layers // period, *array.shape)
                flat.setdefault(path, np.empty(stacked, np.float32))[group] = array
    return unflatten(flat)


def write(
    table: Sequence[Tensor], params: Tree, config: ModelConfig
) -> Iterator[tuple[Tensor, NDArray[np.float32]]]:
    """The tensors of the table, in order, out of our parameter tree; one at a time in memory."""
    for tensor in table:
        matrices = [
            _leaf(params, part.path, tensor.layer, config).reshape(part.matrix)
            for part in tensor.parts
        ]
        array = np.concatenate(matrices, axis=-1)
        yield tensor, np.ascontiguousarray(array.T if tensor.transposed else array)


def _split(tensor: Tensor, weights: Weights) -> list[NDArray[np.float32]]:
    array = np.asarray(weights[tensor.name], np.float32)
    if array.shape != tensor.shape:
        raise ValueError(
            f"{tensor.name} has shape {array.shape}; the config makes it {tensor.shape}"
        )
    matrix = array.T if tensor.transposed else array
    ends = np.cumsum([part.matrix[-1] for part in tensor.parts])[:-1]
    return [
        np.ascontiguousarray(piece).reshape(part.inputs + part.outputs)
        for piece, part in zip(np.split(matrix, ends, axis=-1), tensor.parts, strict=True)
    ]


def _leaf(params: Tree, path: str, layer: int | None, config: ModelConfig) -> NDArray[Any]:
    if layer is not None:
        group, member = divmod(layer, len(config.layer_pattern))
        return np.asarray(_at(params, f"blocks/{member}/{path}")[group], np.float32)
    return np.asarray(_at(params, path), np.float32)


def _at(tree: Tree, path: str) -> Any:
    node: Any = tree
    for name in path.split("/"):
        node = node[name]
    return node
