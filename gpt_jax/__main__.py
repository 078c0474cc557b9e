"""`python -m gpt_jax VERB` is `gpt-jax VERB`."""

from gpt_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
