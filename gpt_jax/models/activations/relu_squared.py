"""Squared ReLU. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.models.entry import ActivationEntry

if TYPE_CHECKING:
    import jax


def function(x: "jax.Array") -> "jax.Array":
    """Squared ReLU."""
    import jax

    return jax.numpy.square(jax.nn.relu(x))


ENTRY = ActivationEntry(
    name="relu_squared",
    summary="max(0, x) squared",
    source="So et al. 2021, arXiv:2109.08668",
    function=function,
    cpu_copies=2,
)
