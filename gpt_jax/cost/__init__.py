"""What training a config costs, by closed form: the only estimators. Must not import jax."""
