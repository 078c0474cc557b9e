"""Pretraining objectives that are known by name, a file each (`gpt_jax.objectives.entry`)."""
