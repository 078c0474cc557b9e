"""The best batch size at each compute as a power law.

Must not import jax.
"""

from gpt_jax.scaling.entry import LawEntry

ENTRY = LawEntry(
    name="batch-size-power",
    kind="optimum",
    summary="the best batch size against compute",
    source="",
    needs=("flops", "batch_tokens"),
    varied="batch_tokens",
)
