"""Sinusoids added to the embeddings. Must not import jax at its top."""

from typing import TYPE_CHECKING, Any

from gpt_jax.config import ModelConfig
from gpt_jax.models.entry import PositionEntry
from gpt_jax.optim.parametrization import sinusoid_embedding_multiplier

if TYPE_CHECKING:
    import jax


def sinusoids(positions_BT: "jax.Array", d_model: int) -> "jax.Array":
    """Sinusoidal position encoding [B, T, D]."""
    import jax.numpy as jnp

    half = d_model // 2
    frequencies = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_BT[..., None].astype(jnp.float32) * frequencies
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*angles.shape[:-1], -1)


def embed(
    x_BTD: "jax.Array",
    positions_BT: "jax.Array",
    rows_BTD: "jax.Array | None",
    model: ModelConfig,
    options: Any,
) -> "jax.Array":
    """Token embeddings at the size of the sinusoids, and these."""
    multiplier = sinusoid_embedding_multiplier(model)
    return x_BTD * multiplier + sinusoids(positions_BT, model.d_model)


def check(model: ModelConfig) -> None:
    """Sine and cosine come in pairs."""
    if model.d_model % 2:
        raise ValueError(f"sinusoidal positions need an even d_model, got {model.d_model}")


ENTRY = PositionEntry(
    name="sinusoidal",
    summary="fixed sinusoids, added",
    source="Vaswani et al. 2017, section 3.5",
    embed=embed,
    absolute=True,
    check=check,
)
