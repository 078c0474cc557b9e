"""Shapes of the learning rate that are known by name, a file each (`gpt_jax.optim.schedule`)."""
