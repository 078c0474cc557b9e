"""Open tables of runs that others published: their addresses, one schema, and their published fits.

`entries/` has a file for each table; nothing of the tables themselves is kept here. Must not
import jax.
"""
