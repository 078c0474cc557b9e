"""A prepared corpus of tokens. Must not import jax."""

from gpt_jax.data.source_entry import SourceEntry

ENTRY = SourceEntry(name="shards", summary="a corpus that gpt-jax data build has made", open=None)
