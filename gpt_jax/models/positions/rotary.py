"""Rotary positions, whole or partial, and their scaling: queries and keys turned by position.
Must not import jax at its top.

Sources of scaling: linear, Chen et al. 2023 (arXiv:2306.15595); YaRN, Peng et al. 2023
(arXiv:2309.00071), section 3.2 and appendix A.2; llama3, Grattafiori et al. 2024
(arXiv:2407.21783), by the numbers of turns that its `rope_scaling` carries.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt_jax.config import ModelConfig
from gpt_jax.config.model import ROTARY_TURNS
from gpt_jax.models.entry import PositionEntry

if TYPE_CHECKING:
    import jax


def rotate(
    x_BTNH: "jax.Array",
    positions_BT: "jax.Array",
    frequencies: "jax.Array",
    amplitude: float = 1.0,
) -> "jax.Array":
    """x with its first 2 len(frequencies) dims rotated, pairing dims i and i + len(frequencies).

    frequencies: radians by which a pair turns from a position to the next.
    """
    import jax.numpy as jnp

    half = frequencies.shape[0]
    angles_BT1H = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies
    sin, cos = jnp.sin(angles_BT1H), jnp.cos(angles_BT1H)
    if amplitude != 1:
        sin, cos = amplitude * sin, amplitude * cos
    x = x_BTNH.astype(jnp.float32)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    rotated = [first * cos - second * sin, second * cos + first * sin]
    rotated += [rest] if rest.shape[-1] else []
    return jnp.concatenate(rotated, axis=-1).astype(x_BTNH.dtype)


def frequencies(size: int, base: float) -> "jax.Array":
    """Unscaled frequencies of size / 2 pairs, the fastest first."""
    import jax.numpy as jnp

    half = size // 2
    return base ** (-jnp.arange(half, dtype=jnp.float32) / half)


def frequencies_of(model: ModelConfig) -> "jax.Array":
    """Frequencies of a model, scaled as it says."""
    size = model.rotary_size or model.d_head
    plain = frequencies(size, model.rotary_base)
    if model.rotary_scaling == "none":
        return plain
    if model.rotary_scaling == "linear":
        return plain / model.rotary_factor
    kept = _kept(model, size).astype(np.float32)
    return plain * (kept + (1 - kept) / model.rotary_factor)


def amplitude_of(model: ModelConfig) -> float:
    """Factor of rotated queries and keys (YaRN's temperature, equation 22)."""
    if model.rotary_amplitude is not None:
        return model.rotary_amplitude
    if model.rotary_scaling == "yarn" and model.rotary_factor > 1:
        return 0.1 * math.log(model.rotary_factor) + 1
    return 1.0


def _kept(model: ModelConfig, size: int) -> "np.ndarray[Any, Any]":
    """Share of each frequency that is not scaled: 0 for long wavelengths, 1 for short ones.

    In between it rises linearly: with the number of turns (llama3), or from dim to dim (YaRN).
    """
    trained = model.rotary_trained_len
    assert trained is not None
    few, many = model.rotary_turns or ROTARY_TURNS[model.rotary_scaling]
    exponents = np.arange(0, size, 2) / size
    if model.rotary_scaling == "llama3":
        turns = trained * model.rotary_base**-exponents / (2 * math.pi)
        return np.clip((turns - few) / (many - few), 0, 1)

    def dim_of(turns: float) -> float:
        """The pair that makes so many turns."""
        of_wavelength = math.log(trained / (turns * 2 * math.pi))
        return size * of_wavelength / (2 * math.log(model.rotary_base))

    first = max(math.floor(dim_of(many)), 0)
    last = min(math.ceil(dim_of(few)), size - 1)
    return 1 - np.clip((np.arange(size // 2) - first) / max(last - first, 1e-3), 0, 1)


def turn(
    x_BTNH: "jax.Array", positions_BT: "jax.Array", model: ModelConfig, options: Any
) -> "jax.Array":
    """Queries or keys, turned."""
    return rotate(x_BTNH, positions_BT, frequencies_of(model), amplitude_of(model))


def check(model: ModelConfig) -> None:
    """Dims of a head are turned in pairs, and there are enough of them."""
    size = model.rotary_size or model.d_head
    if size % 2:
        raise ValueError(f"rotary positions need an even head size, got {size}")
    if size > model.d_head:
        raise ValueError(f"model.rotary_size = {size} exceeds the head size {model.d_head}")


ENTRY = PositionEntry(
    name="rotary",
    summary="queries and keys turned by their positions (rotary_base, rotary_scaling, ...)",
    source="Su et al. 2021, arXiv:2104.09864, section 3.2",
    turn=turn,
    check=check,
)
