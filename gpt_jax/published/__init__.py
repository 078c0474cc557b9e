"""The papers' tables as data, and beside them what this code computes or measured.

`data/` holds the printed numbers with their digits; a value that is missing there is unknown.

Must not import jax.
"""
