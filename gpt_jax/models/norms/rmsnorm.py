"""RMSNorm. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.models.entry import NormEntry

if TYPE_CHECKING:
    import jax


def over_rms(x: "jax.Array", epsilon: float) -> "jax.Array":
    """Root mean square 1 over the last dim."""
    import jax
    import jax.numpy as jnp

    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)


ENTRY = NormEntry(
    name="rmsnorm",
    summary="root mean square 1, with a gain",
    source="Zhang and Sennrich 2019, arXiv:1910.07467",
    normalise=over_rms,
    has_bias=False,
)
