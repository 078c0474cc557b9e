"""Learned position embeddings, added to those of tokens. Must not import jax at its top."""

from typing import TYPE_CHECKING, Any

from gpt_jax.config import ModelConfig
from gpt_jax.models.entry import PositionEntry

if TYPE_CHECKING:
    import jax


def embed(
    x_BTD: "jax.Array",
    positions_BT: "jax.Array",
    rows_BTD: "jax.Array | None",
    model: ModelConfig,
    options: Any,
) -> "jax.Array":
    """Token and position embeddings."""
    assert rows_BTD is not None
    return x_BTD + rows_BTD


ENTRY = PositionEntry(
    name="learned",
    summary="a learned embedding of each position, added",
    source="Radford et al. 2018 (GPT-1), section 3.1",
    table=lambda model, options: model.seq_len,
    embed=embed,
    absolute=True,
)
