"""Stochastic gradient descent with momentum. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.optim.entry import Build, OptimizerEntry, bytes_of

if TYPE_CHECKING:
    import optax


def direction(build: Build) -> "optax.GradientTransformation":
    """A trace of the gradients that decays with b1."""
    import optax

    return optax.trace(build.numbers.b1)


ENTRY = OptimizerEntry(
    name="sgd",
    summary="gradient descent with momentum b1",
    direction=direction,
    state_bytes=bytes_of(1),
    mup=lambda group, options: "sgd",
    follows_epsilon=False,
)
