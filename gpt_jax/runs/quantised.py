"""Weights in 8 or 4 bits, as a checkpoint holds them: integers times a scale.

Rounding is by qwix (`quantise`); reading them again needs nothing but what stands here. A model is
computed with the floats they stand for: files are smaller, products are as they were.

int8: a scale for each output of a matrix. int4: for each output and each `group` of inputs, and two
integers to a byte. The scales are float32. Biases, gains, positions and what a task added stay.
"""

import functools
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from gpt_jax.compress.matrices import (
    TABLE,
    as_matrices,
    as_stored,
    is_kernel,
    shape_as_matrices,
)
from gpt_jax.models.trees import Flat, flatten, unflatten
from gpt_jax.runs.checkpoint_choice import find_sound
from gpt_jax.runs.checkpoint_files import Manifest, Which
from gpt_jax.runs.restoring import restore_field

Weights = Literal["int8", "int4"]
KINDS: tuple[Weights, ...] = ("int8", "int4")
HALF = 8
"""Added to a 4-bit integer, which makes it one of 0 to 15."""


def quantise(params: dict[str, Any], weights: Weights, group: int) -> dict[str, Any]:
    """Parameters with an entry {weights: integers, scale: float32} in the place of each matrix.

    group: inputs that share a scale, of int4. Raises ValueError where it divides a matrix's inputs
    not.
    """
    flat = flatten(params)
    for path, x in flat.items():
        if is_kernel(path) or path == TABLE:
            flat[path] = _rounded(path, x, weights, group)
    return unflatten(flat)


def _rounded(path: str, x: jax.Array, weights: Weights, group: int) -> dict[str, jax.Array]:
    import qwix

    x_GIO = jnp.asarray(as_matrices(path, x))
    if weights == "int8":
        found = qwix.quantize(x_GIO, jnp.int8, channelwise_axes=(0, 2))
        return {"int8": found.qvalue, "scale": found.scale}
    if x_GIO.shape[1] % group:
        raise ValueError(
            f"--group {group} does not divide the {x_GIO.shape[1]:,} inputs of {path}; allowed: a "
            "divisor of the inputs of every matrix"
        )
    found = qwix.quantize(x_GIO, jnp.int4, channelwise_axes=(0, 2), tiled_axes={1: group})
    return {"int4": packed(found.qvalue), "scale": found.scale}


@jax.jit
def packed(values_GIO: jax.Array) -> jax.Array:
    """Two 4-bit integers (-8 to 7) in a byte: [G, ceil(I / 2), O] of inputs 2 i and 2 i + 1."""
    plain = (values_GIO.astype(jnp.int8) + HALF).astype(jnp.uint8)
    plain = jnp.pad(plain, ((0, 0), (0, plain.shape[1] % 2), (0, 0)))
    return plain[:, ::2] | (plain[:, 1::2] << 4)


@functools.partial(jax.jit, static_argnums=1)
def unpacked(bytes_GIO: jax.Array, n_inputs: int) -> jax.Array:
    """The int8 [G, I, O] that `packed` took."""
    pairs = jnp.stack([bytes_GIO & 15, bytes_GIO >> 4], axis=2)
    n_groups, _, n_outputs = bytes_GIO.shape
    plain = pairs.reshape(n_groups, -1, n_outputs)[:, :n_inputs]
    return plain.astype(jnp.int8) - HALF


@functools.partial(jax.jit, static_argnums=(0, 2))
def dequantised(path: str, stored: dict[str, jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """The float32 weights that integers and scales stand for."""
    n_groups, n_inputs, n_outputs = shape_as_matrices(path, shape)
    values = unpacked(stored["int4"], n_inputs) if "int4" in stored else stored["int8"]
    scale_GSO = stored["scale"]
    by_scale = values.reshape(n_groups, scale_GSO.shape[1], -1, n_outputs)
    x_GIO = by_scale * scale_GSO[:, :, None]
    return as_stored(path, x_GIO.reshape(n_groups, n_inputs, n_outputs), shape)


def restore(directory: Path, abstract: Any, which: Which, field: str) -> Any:
    """`gpt_jax.runs.restoring.restore_params`, of weights that may be stored in few bits."""
    return restore_found(*find_sound(directory.absolute(), which), abstract, field)


def restore_found(path: Path, manifest: Manifest, abstract: Any, field: str) -> Any:
    """`restore` of a checkpoint that `find_sound` has found."""
    wanted: Flat = flatten(abstract)
    stored: Flat = {}
    for name, x in wanted.items():
        entry = {
            kind: _abstract(*manifest.arrays[array])
            for kind in (*KINDS, "scale")
            if (array := f"{field}/{name}/{kind}") in manifest.arrays
        }
        stored[name] = entry or x
    if not any(isinstance(x, dict) for x in stored.values()):
        return restore_field(path, manifest, abstract, field)
    found = flatten_entries(restore_field(path, manifest, unflatten(stored), field), wanted)

    floats = {
        name: dequantised(name, x, wanted[name].shape) if isinstance(x, dict) else x
        for name, x in found.items()
    }
    return jax.tree.map(
        lambda x, like: x if like.sharding is None else jax.device_put(x, like.sharding),
        unflatten(floats),
        abstract,
    )


def flatten_entries(tree: dict[str, Any], paths: Flat) -> Flat:
    """{path: leaf, or entry of a matrix in few bits}."""

    def at(path: str) -> Any:
        node: Any = tree
        for part in path.split("/"):
            node = node[part]
        return node

    return {path: at(path) for path in paths}


def _abstract(shape: list[int], dtype: str) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
