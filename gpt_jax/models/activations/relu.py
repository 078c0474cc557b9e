"""Rectified linear unit. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.models.entry import ActivationEntry

if TYPE_CHECKING:
    import jax


def function(x: "jax.Array") -> "jax.Array":
    """Rectified linear unit."""
    import jax

    return jax.nn.relu(x)


ENTRY = ActivationEntry(
    name="relu",
    summary="max(0, x)",
    function=function,
    cpu_copies=2,
)
