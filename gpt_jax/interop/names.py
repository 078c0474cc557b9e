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


Columns = slice | NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class Part:
    """One of our arrays: its path in the tree, without the stacked layer dim, and its dims."""

    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    expert: int | None = None
    """Index in the dim of experts, of which the part is one entry."""

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
    by_head: bool = False
    """Parts alternate head by head (GPT-NeoX, BLOOM) and do not follow one another."""
    aliases: tuple[str, ...] = ()
    """Other names that it may have in a folder."""
    spare_rows: int = 0
    """Rows in front that are no part of the model (OPT's positions): written as zeros."""

    @property
    def shape(self) -> tuple[int, ...]:
        rows = tuple(n + self.spare_rows for n in self.parts[0].matrix[:-1])
        shape = (*rows, sum(part.matrix[-1] for part in self.parts))
        return shape[::-1] if self.transposed else shape

    def columns(self) -> list[Columns]:
        """For each part the places of its outputs along the tensor's outputs."""
        found: list[Columns] = []
        first = 0
        for i, part in enumerate(self.parts):
            width = part.matrix[-1]
            if self.by_head:
                heads, size = part.outputs
                starts = size * (len(self.parts) * np.arange(heads) + i)
                found.append((starts[:, None] + np.arange(size)).reshape(-1))
            else:
                found.append(slice(first, first + width))
            first += width
        return found


def read(table: Sequence[Tensor], weights: Weights, config: ModelConfig) -> Tree:
    """Our parameter tree, float32, of weights that hold every tensor of the table.

    Raises ValueError naming a tensor that is missing, misshapen, or has no place in the model.
    """
    table = [_present(tensor, weights) for tensor in table]
    left = sorted(weights.keys() - {tensor.name for tensor in table})
    if left:
        raise ValueError(f"the config has no place for the weights {', '.join(left)}")
    flat: dict[str, Any] = {}
    for tensor in table:
        for part, array in zip(tensor.parts, _split(tensor, weights), strict=True):
            if tensor.layer is None:
                flat[part.path] = array
                continue
            period = len(config.layer_pattern)
            group, member = divmod(tensor.layer, period)
            path = f"blocks/{member}/{part.path}"
            experts = () if part.expert is None else (config.n_experts or 0,)
            place: tuple[int, ...] = (group,) if part.expert is None else (group, part.expert)
            if path not in flat:
                stacked = (config.n_layers // period, *experts, *array.shape)
                flat[path] = np.empty(stacked, np.float32)
            flat[path][place] = array
    return unflatten(flat)


def write(
    table: Sequence[Tensor], params: Tree, config: ModelConfig
) -> Iterator[tuple[Tensor, NDArray[np.float32]]]:
    """The tensors of the table, in order, out of our parameter tree; one at a time in memory."""
    for tensor in table:
        shape = tensor.shape[::-1] if tensor.transposed else tensor.shape
        array = np.zeros(shape, np.float32)
        for part, columns in zip(tensor.parts, tensor.columns(), strict=True):
            values = _leaf(params, part, tensor.layer, config).reshape(part.matrix)
            if array.ndim == 1:
                array[columns] = values
            else:
                array[tensor.spare_rows :, columns] = values
        yield tensor, np.ascontiguousarray(array.T if tensor.transposed else array)


def _present(tensor: Tensor, weights: Weights) -> Tensor:
    """The tensor by the name that it has here. Raises ValueError if it is missing."""
    for name in (tensor.name, *tensor.aliases):
        if name in weights:
            return dataclasses.replace(tensor, name=name)
    raise ValueError(f"the weights have no {tensor.name}")


def _split(tensor: Tensor, weights: Weights) -> list[NDArray[np.float32]]:
    array = np.asarray(weights[tensor.name], np.float32)
    if array.shape != tensor.shape:
        raise ValueError(
            f"{tensor.name} has shape {array.shape}; the config makes it {tensor.shape}"
        )
    matrix = array.T if tensor.transposed else array
    matrix = matrix[tensor.spare_rows :]
    return [
        np.ascontiguousarray(matrix[..., columns]).reshape(part.inputs + part.outputs)
        for columns, part in zip(tensor.columns(), tensor.parts, strict=True)
    ]


def _leaf(params: Tree, part: Part, layer: int | None, config: ModelConfig) -> NDArray[Any]:
    if layer is None:
        return np.asarray(_at(params, part.path), np.float32)
    group, member = divmod(layer, len(config.layer_pattern))
    array = _at(params, f"blocks/{member}/{part.path}")[group]
    return np.asarray(array if part.expert is None else array[part.expert], np.float32)


def _at(tree: Tree, path: str) -> Any:
    node: Any = tree
    for name in path.split("/"):
        node = node[name]
    return node
