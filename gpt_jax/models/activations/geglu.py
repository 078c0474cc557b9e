"""The gate of GEGLU. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.models.entry import ActivationEntry

if TYPE_CHECKING:
    import jax


def function(x: "jax.Array") -> "jax.Array":
    """The gate of GEGLU."""
    import jax

    return jax.nn.gelu(x, approximate=True)


ENTRY = ActivationEntry(
    name="geglu",
    summary="gelu_tanh of a gate, times the hidden units",
    source="Shazeer 2020, arXiv:2002.05202, equation 6",
    function=function,
    gated=True,
    cpu_copies=4,
)
