"""Soft cap of attention scores, as in Gemma 2. Must not import jax at its top."""

from typing import TYPE_CHECKING, Any

from gpt_jax.config import ModelConfig
from gpt_jax.config.fields import PositiveFloat, section
from gpt_jax.models.entry import OURS, Change, ScoreEntry

if TYPE_CHECKING:
    import jax


@section
class Options:
    """The cap."""

    cap: PositiveFloat = 50.0
    """Scores stay within -cap and cap (Gemma 2: 50)."""


def change(model: ModelConfig, options: Options, parameters: Any) -> Change:
    """cap tanh(score / cap)."""

    def capped(scores: "jax.Array") -> "jax.Array":
        import jax.numpy as jnp

        return options.cap * jnp.tanh(scores / options.cap)

    return Change(elementwise=capped, splash=(("attn_logits_soft_cap", options.cap),))


ENTRY = ScoreEntry(
    name="soft_cap",
    summary="cap tanh(score / cap)",
    source="Gemma Team 2024, arXiv:2408.00118, section 2",
    options=Options,
    change=change,
    kernels=OURS | {"splash"},
)
