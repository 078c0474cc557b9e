"""GELU in its exact form. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.models.entry import ActivationEntry

if TYPE_CHECKING:
    import jax


def function(x: "jax.Array") -> "jax.Array":
    """GELU in its exact form."""
    import jax

    return jax.nn.gelu(x, approximate=False)


ENTRY = ActivationEntry(
    name="gelu",
    summary="x times the normal distribution function, exactly",
    source="Hendrycks and Gimpel 2016, arXiv:1606.08415",
    function=function,
)
