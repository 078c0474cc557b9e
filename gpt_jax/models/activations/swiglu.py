"""The gate of SwiGLU. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.models.entry import ActivationEntry

if TYPE_CHECKING:
    import jax


def function(x: "jax.Array") -> "jax.Array":
    """The gate of SwiGLU."""
    import jax

    return jax.nn.silu(x)


ENTRY = ActivationEntry(
    name="swiglu",
    summary="silu of a gate, times the hidden units",
    source="Shazeer 2020, arXiv:2002.05202, equation 6",
    function=function,
    gated=True,
    cpu_copies=4,
)
