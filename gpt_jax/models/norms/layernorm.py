"""LayerNorm. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.models.entry import NormEntry
from gpt_jax.models.norms.rmsnorm import over_rms

if TYPE_CHECKING:
    import jax


def normalise(x: "jax.Array", epsilon: float) -> "jax.Array":
    """Mean 0 and variance 1 over the last dim."""
    import jax.numpy as jnp

    return over_rms(x - jnp.mean(x, axis=-1, keepdims=True), epsilon)


ENTRY = NormEntry(
    name="layernorm",
    summary="mean 0 and variance 1, with gain and bias",
    source="Ba et al. 2016, arXiv:1607.06450",
    normalise=normalise,
    has_bias=True,
)
