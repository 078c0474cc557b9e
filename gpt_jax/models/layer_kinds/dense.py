"""Layers whose queries see all keys before them. Must not import jax."""

from gpt_jax.models.entry import LayerEntry

ENTRY = LayerEntry(name="dense", summary="attention to all tokens before")
