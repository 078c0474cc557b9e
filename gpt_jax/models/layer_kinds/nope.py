"""Dense layers without positions. Must not import jax."""

from gpt_jax.config import ModelConfig
from gpt_jax.models.entry import LayerEntry


def check(model: ModelConfig) -> None:
    """Raises ValueError for a model that has its positions elsewhere."""
    if model.position != "rotary":
        raise ValueError("model.layer_pattern has nope layers; set model.position = rotary")


ENTRY = LayerEntry(
    name="nope",
    summary="dense, without rotary positions (SmolLM3)",
    source="Yang et al. 2025, arXiv:2501.18795",
    turns=False,
    check=check,
)
