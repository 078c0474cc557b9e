"""No positions: a causal mask alone. Must not import jax."""

from gpt_jax.models.entry import PositionEntry

ENTRY = PositionEntry(name="none", summary="none but the causal mask")
