"""GELU in the approximation by tanh that GPT-2 has. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.models.entry import ActivationEntry

if TYPE_CHECKING:
    import jax


def function(x: "jax.Array") -> "jax.Array":
    """GELU in the approximation by tanh that GPT-2 has."""
    import jax

    return jax.nn.gelu(x, approximate=True)


ENTRY = ActivationEntry(
    name="gelu_tanh",
    summary="gelu by tanh (GPT-2)",
    source="Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2",
    function=function,
)
