"""Rotary positions: queries and keys turned by their positions. Must not import jax at its top."""

from typing import TYPE_CHECKING, Any

from gpt_jax.config import ModelConfig
from gpt_jax.models.entry import PositionEntry

if TYPE_CHECKING:
    import jax


def rotate(x_BTNH: "jax.Array", positions_BT: "jax.Array", base: float) -> "jax.Array":
    """Rotary position embedding, pairing dims i and i + H/2."""
    import jax.numpy as jnp

    half = x_BTNH.shape[-1] // 2
    frequencies_H = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles_BT1H = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies_H
    sin, cos = jnp.sin(angles_BT1H), jnp.cos(angles_BT1H)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x_BTNH.dtype)


def turn(
    x_BTNH: "jax.Array", positions_BT: "jax.Array", model: ModelConfig, options: Any
) -> "jax.Array":
    """Queries or keys, turned."""
    return rotate(x_BTNH, positions_BT, model.rotary_base)


def check(model: ModelConfig) -> None:
    """Dims of a head are turned in pairs."""
    if model.d_head % 2:
        raise ValueError(f"rotary positions need an even head size, got {model.d_head}")


ENTRY = PositionEntry(
    name="rotary",
    summary="queries and keys turned by their positions (rotary_base)",
    source="Su et al. 2021, arXiv:2104.09864, section 3.2",
    turn=turn,
    check=check,
)
