"""L = (C_c / C)^alpha_C, from Kaplan et al. 2020.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import KAPLAN_CONVENTION, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.laws import one_power

    return one_power("flops", "C_c", "alpha_C", "L", "scale", centers, irreducible)


ENTRY = LawEntry(
    name="kaplan-c",
    kind="loss",
    summary="loss against compute, optimally spent",
    source="Kaplan et al. 2020, eq. 1.3",
    needs=("flops",),
    build=build,
    irreducible="E",
    prefer=KAPLAN_CONVENTION,
)
