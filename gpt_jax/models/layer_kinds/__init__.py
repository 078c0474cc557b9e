"""Kinds of layers that are known by name, a file each (`gpt_jax.models.entry`)."""
