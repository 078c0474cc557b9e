"""Tokenizers that are known by name, a file each (`gpt_jax.data.tokenizers.entry`)."""
