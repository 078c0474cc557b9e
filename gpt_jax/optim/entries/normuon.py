"""NorMuon: Muon with a learning rate for each neuron. Must not import jax at its top.

A matrix's momentum is orthogonalised, and each row (an output neuron) of the result is divided by
the root of a running mean of its squares; the whole is brought back to Muon's root mean square.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt_jax.config.fields import PositiveFloat, Probability, section
from gpt_jax.optim.entries.muon import MUON_RMS, beside_adam, is_matrix, mup
from gpt_jax.optim.entry import FLOAT32, Build, OptimizerEntry, Shape
from gpt_jax.optim.roles import as_matrix, n_stacked, rule

if TYPE_CHECKING:
    import jax
    import optax

NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024), five times."""


@section
class Options:
    """Settings that NorMuon adds to Muon's."""

    neuron_decay: Probability = 0.95
    """Decay of the mean of squares of each neuron (the paper's beta_2)."""
    neuron_epsilon: PositiveFloat = 1e-8
    """Added to the root of that mean."""


class State(NamedTuple):
    """Momentum [G, inputs..., outputs...] and mean of squares [G, outputs] of every matrix."""

    momentum: Any
    squares: Any


def direction(build: Build) -> "optax.GradientTransformation":
    """NorMuon for matrices, AdamW for the rest."""
    return beside_adam(build, _normuon(build))


def _normuon(build: Build) -> "optax.GradientTransformation":
    import jax
    import jax.numpy as jnp
    import optax

    from gpt_jax.optim.roles import as_matrices

    h, options = build.numbers, build.options

    def one(
        path: tuple[Any, ...], momentum: jax.Array, squares_GO: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(update, new mean of squares) of one parameter: lines 5 to 9 of the algorithm."""
        ortho_GIO = _orthogonalised(as_matrices(path, momentum), h.epsilon)
        mean_GO = jnp.mean(jnp.square(ortho_GIO), axis=1)  # over the inputs of each neuron
        squares_GO = options.neuron_decay * squares_GO + (1 - options.neuron_decay) * mean_GO
        normed_GIO = ortho_GIO / (jnp.sqrt(squares_GO) + options.neuron_epsilon)[:, None]
        rms_G11 = jnp.sqrt(jnp.mean(jnp.square(normed_GIO), axis=(1, 2), keepdims=True))
        scaled_GIO = MUON_RMS * normed_GIO / jnp.maximum(rms_G11, options.neuron_epsilon)
        return scaled_GIO.reshape(momentum.shape), squares_GO

    def init(params: Any) -> State:
        def squares(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
            n_matrices, _, n_outputs = jax.eval_shape(lambda x: as_matrices(path, x), x).shape
            return jnp.zeros((n_matrices, n_outputs), jnp.float32)

        moments = jax.tree.map(jnp.zeros_like, params)
        return State(moments, jax.tree_util.tree_map_with_path(squares, params))

    def update(gradients: Any, state: State, _: Any = None) -> tuple[Any, State]:
        momentum = jax.tree.map(lambda m, g: h.b1 * m + (1 - h.b1) * g, state.momentum, gradients)
        both = jax.tree_util.tree_map_with_path(one, momentum, state.squares)
        outer, inner = jax.tree.structure(momentum), jax.tree.structure((0, 0))
        updates, squares = jax.tree.transpose(outer, inner, both)
        return updates, State(momentum, squares)

    return optax.GradientTransformation(init, update)


def _orthogonalised(x_GIO: "jax.Array", epsilon: Any) -> "jax.Array":
    """The nearest orthogonal matrix, about: five Newton-Schulz steps of the shorter side."""
    import jax.numpy as jnp

    turned = x_GIO.shape[1] > x_GIO.shape[2]
    x = x_GIO.swapaxes(1, 2) if turned else x_GIO
    x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + epsilon)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        gram = x @ x.swapaxes(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.swapaxes(1, 2) if turned else x


def state_bytes(path: str, shape: Shape, options: Any) -> int:
    """A moment of a matrix and a number for each of its neurons; two moments of everything else."""
    size = math.prod(shape)
    if not is_matrix(rule(path).role):
        return 2 * FLOAT32 * size
    n_matrices = math.prod(shape[: n_stacked(path)])
    return FLOAT32 * (size + n_matrices * as_matrix(path, shape)[1])


ENTRY = OptimizerEntry(
    name="normuon",
    summary="muon with each neuron's update normed; the rest is adamw",
    source="Li et al. 2025, arXiv:2510.05491, algorithm 1",
    options=Options,
    direction=direction,
    state_bytes=state_bytes,
    mup=mup,
    at_learning_rate=is_matrix,
)
