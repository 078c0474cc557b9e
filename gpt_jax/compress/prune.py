"""Pruning of a trained model: small weights, whole heads, whole layers are removed."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt_jax.compress.matrices import as_matrices, as_stored, is_kernel
from gpt_jax.config import ModelConfig
from gpt_jax.models import probes
from gpt_jax.models.entry import score_changes
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.trees import flatten, unflatten

FORMS = "magnitude:SHARE, 2:4, heads:N or layers:N"


class Pruning(NamedTuple):
    """magnitude (share of weights), 2:4, heads (of each layer) or layers (number taken away)."""

    form: str
    amount: float


def parse(text: str) -> Pruning:
    """`magnitude:0.5`, `2:4`, `heads:2`, `layers:1`. Raises ValueError for anything else."""
    if text == "2:4":
        return Pruning("2:4", 0.5)
    match = re.fullmatch(r"(magnitude|heads|layers):([\d.]+)", text)
    try:
        form, amount = (match[1], float(match[2])) if match else ("", 0.0)
    except ValueError:
        form, amount = "", 0.0
    share = form == "magnitude" and 0 < amount < 1
    number = form in ("heads", "layers") and amount >= 1 and amount == int(amount)
    if not (share or number):
        raise ValueError(f"--prune {text}; allowed: {FORMS}, as in magnitude:0.5 or layers:2")
    return Pruning(form, amount)


def prune(
    pruning: Pruning, model: GPT, params: Params, tokens_BT: jax.Array | None
) -> tuple[ModelConfig, Params]:
    """(config, parameters) of what is left. tokens_BT: text on which layers are compared.

    Raises ValueError where more is asked for than there is, or the model has no such parts.
    """
    match pruning.form:
        case "magnitude":
            return model.config, without_small(params, pruning.amount)
        case "2:4":
            return model.config, two_of_four(params)
        case "heads":
            return without_heads(model.config, params, int(pruning.amount))
    assert tokens_BT is not None
    return without_layers(model, params, int(pruning.amount), tokens_BT)


def _of_kernels(params: Params, change: Callable[[np.ndarray], np.ndarray]) -> Params:
    """Parameters with `change` of each kernel's [G, I, O]."""
    flat = flatten(params)
    for path, x in flat.items():
        if is_kernel(path):
            flat[path] = as_stored(path, change(as_matrices(path, np.asarray(x))), x.shape)
    return unflatten(flat)


def without_small(params: Params, share: float) -> Params:
    """Sets the `share` of smallest weights of each kernel of each layer to 0 (Han et al. 2015)."""

    def change(x_GIO: np.ndarray) -> np.ndarray:
        n = round(share * x_GIO[0].size)
        sizes = np.abs(x_GIO).reshape(len(x_GIO), -1)
        # By place in the order, so that exactly so many go where weights are equal.
        places = np.argsort(np.argsort(sizes, axis=1), axis=1)
        return np.where(places.reshape(x_GIO.shape) < n, np.float32(0), x_GIO)

    return _of_kernels(params, change)


def two_of_four(params: Params) -> Params:
    """Sets the two smallest of every four consecutive inputs of an output to 0: the 2:4 sparsity
    of sparse tensor cores (Mishra et al. 2021).

    Raises ValueError where the number of inputs is not a multiple of 4.
    """

    def change(x_GIO: np.ndarray) -> np.ndarray:
        n_groups, n_inputs, n_outputs = x_GIO.shape
        if n_inputs % 4:
            raise ValueError(f"--prune 2:4: a kernel has {n_inputs} inputs, no multiple of 4")
        fours = x_GIO.reshape(n_groups, n_inputs // 4, 4, n_outputs)
        places = np.argsort(np.argsort(np.abs(fours), axis=2), axis=2)
        return np.where(places < 2, np.float32(0), fours).reshape(x_GIO.shape)

    return _of_kernels(params, change)


HEADS_AXIS = {
    "query/kernel": 2,
    "key/kernel": 2,
    "value/kernel": 2,
    "out/kernel": 1,
    "query/bias": 1,
    "key/bias": 1,
    "value/bias": 1,
}
"""Axis of the heads in each attention parameter; axis 0 is the group of layers."""


def without_heads(config: ModelConfig, params: Params, n: int) -> tuple[ModelConfig, Params]:
    """n heads fewer in every layer: those whose value and output weights have the smallest product
    of norms, which bounds what a head can add to the stream."""
    kept = config.n_heads - n
    if kept < 1:
        raise ValueError(f"--prune heads:{n}; allowed: 1 to {config.n_heads - 1}")
    if config.kv_heads != config.n_heads or score_changes(config):
        names = ", ".join(entry.name for entry, _ in score_changes(config))
        what = f"{names} treats each by itself" if names else "keys are shared"
        raise ValueError(f"--prune heads: {what}: heads of this model cannot be taken away")
    flat = flatten(params)
    for module in [p.removesuffix("out/kernel") for p in flat if p.endswith("/out/kernel")]:
        value_GDNH, out_GNHD = (
            np.asarray(flat[f"{module}{name}/kernel"]) for name in ("value", "out")
        )
        norm_GN = np.sqrt((value_GDNH**2).sum((1, 3)) * (out_GNHD**2).sum((2, 3)))
        chosen_GN = np.sort(np.argsort(-norm_GN, axis=1)[:, :kept], axis=1)
        for name, axis in HEADS_AXIS.items():
            if module + name not in flat:
                continue
            x = np.asarray(flat[module + name])
            shape = (len(x), *(kept if i == axis else 1 for i in range(1, x.ndim)))
            flat[module + name] = np.take_along_axis(x, chosen_GN.reshape(shape), axis)
    fewer = dataclasses.replace(
        config,
        n_heads=kept,
        n_kv_heads=kept if config.n_kv_heads else None,
        head_size=config.d_head,
    )
    return fewer, unflatten(flat)


@functools.partial(jax.jit, static_argnums=0)
def influences(model: GPT, params: Params, tokens_BT: jax.Array) -> jax.Array:
    """Influence of each group of layers (a period of layer_pattern), [G]: 1 - the mean cosine
    between the residual stream before it and after it (Men et al. 2024, arXiv:2403.03853,
    equation 1)."""
    seen = probes.activations(model, params, tokens_BT)
    period = len(model.config.layer_pattern)
    after_GBTD = seen["stream"][period - 1 :: period]
    before_GBTD = jnp.concatenate([seen["embedding"][None], after_GBTD[:-1]])

    def unit(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-30)

    cosine_GBT = jnp.sum(unit(before_GBTD) * unit(after_GBTD), axis=-1)
    return 1 - jnp.mean(cosine_GBT, axis=(1, 2))


def without_layers(
    model: GPT, params: Params, n: int, tokens_BT: jax.Array
) -> tuple[ModelConfig, Params]:
    """n layers fewer: the groups of least influence."""
    config = model.config
    period = len(config.layer_pattern)
    if n % period or n >= config.n_layers:
        raise ValueError(
            f"--prune layers:{n}; allowed: a multiple of the length of model.layer_pattern, "
            f"{period}, below model.n_layers = {config.n_layers}"
        )
    if config.parametrization == "completep":
        raise ValueError("--prune layers: completep scales each layer by their number")
    order = np.argsort(-np.asarray(influences(model, params, tokens_BT)))
    kept = np.sort(order[: (config.n_layers - n) // period])
    blocks = jax.tree.map(lambda x: np.asarray(x)[kept], params["blocks"])
    return dataclasses.replace(config, n_layers=config.n_layers - n), {**params, "blocks": blocks}
