"""Data sources that are known by name, a file each (`gpt_jax.data.source_entry`)."""
