"""Update rules that are known by name, a file each (`gpt_jax.optim.entry`).

A file has one ENTRY of its own name, and imports jax and optax when the rule is built.
"""
