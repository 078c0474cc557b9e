"""L = a C^b + c: the loss of the best runs, from the report on GPT-4.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.laws import one_power

    return one_power("flops", "a", "b", "L", "signed", centers, irreducible)


ENTRY = LawEntry(
    name="compute-power",
    kind="loss",
    summary="loss against compute with an irreducible loss",
    source="OpenAI 2023 (GPT-4), section 3",
    needs=("flops",),
    build=build,
    irreducible="c",
    irreducible_by_default=True,
)
