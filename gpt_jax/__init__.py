"""gpt_jax: declare a family of GPTs, plan, train, fit the scaling law, compare with the paper."""

__version__ = "0.1.0"
