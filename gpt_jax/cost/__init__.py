"""Closed-form estimates of what training a config costs: the only ones. Must not import jax."""
