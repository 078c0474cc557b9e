"""The best learning rate at each compute as a power law.

Must not import jax.
"""

from gpt_jax.scaling.entry import LawEntry

ENTRY = LawEntry(
    name="learning-rate-power",
    kind="optimum",
    summary="the best learning rate against compute",
    source="",
    needs=("flops", "learning_rate"),
    varied="learning_rate",
)
