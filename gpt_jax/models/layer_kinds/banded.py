"""Layers whose queries see a sliding window of keys. Must not import jax."""

import dataclasses

from gpt_jax.config import ModelConfig
from gpt_jax.models.entry import LayerEntry


def with_positions(model: ModelConfig) -> ModelConfig:
    """The model with the rotary base of banded layers, whose wavelengths are not scaled."""
    if model.rotary_base_banded is None:
        return model
    return dataclasses.replace(
        model,
        rotary_base=model.rotary_base_banded,
        rotary_base_banded=None,
        rotary_scaling="none",
        rotary_factor=1.0,
        rotary_trained_len=None,
        rotary_turns=None,
        rotary_amplitude=None,
    )


def check(model: ModelConfig) -> None:
    """Raises ValueError without a window."""
    if model.window is None:
        raise ValueError("model.layer_pattern has banded layers; set model.window (tokens)")


ENTRY = LayerEntry(
    name="banded",
    summary="attention to the last model.window tokens",
    source="Child et al. 2019, arXiv:1904.10509; Brown et al. 2020, section 2.1",
    window=lambda model: model.window,
    with_positions=with_positions,
    check=check,
)
