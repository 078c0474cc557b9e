"""Files: paths that users give, tables and records that they write, JSON and CSV of ours.

Must not import jax.
"""
