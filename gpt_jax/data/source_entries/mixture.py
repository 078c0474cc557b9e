"""Several prepared corpora. Must not import jax."""

from gpt_jax.data.source_entry import SourceEntry

ENTRY = SourceEntry(
    name="mixture",
    summary="prepared corpora, with weights (data.mixture)",
    open=None,
    needs_path=False,
)
