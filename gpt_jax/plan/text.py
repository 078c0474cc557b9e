"""Plans as text. Must not import jax."""
