"""ALiBi: positions in the attention scores alone. Must not import jax."""

from gpt_jax.models.entry import PositionEntry

ENTRY = PositionEntry(
    name="alibi",
    summary="a penalty of attention scores in proportion to distance",
    source="Press et al. 2022, arXiv:2108.12409",
    scores=("alibi",),
)
