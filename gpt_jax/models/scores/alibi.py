"""ALiBi: a penalty in proportion to distance. Must not import jax at its top."""

import math
from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.models.entry import OURS, Change, ScoreEntry


def alibi_slopes(n_heads: int) -> list[float]:
    """One slope a head (Press et al. 2022): 2^(-8 i / N), interpolated where N is no power of 2."""
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2 ** (-8 * (i + 0.5) / power) for i in range(power)]
    return slopes + between[: n_heads - power]


def change(model: ModelConfig, options: Any, parameters: Any) -> Change:
    """Slopes by head."""
    return Change(slopes=tuple(alibi_slopes(model.n_heads)))


ENTRY = ScoreEntry(
    name="alibi",
    title="ALiBi",
    summary="score - slope * distance, a slope a head",
    source="Press et al. 2022, arXiv:2108.12409, section 3",
    change=change,
    kernels=OURS,
)
