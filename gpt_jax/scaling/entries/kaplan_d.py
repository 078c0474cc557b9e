"""L = (D_c / D)^alpha_D, from Kaplan et al. 2020.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import KAPLAN_CONVENTION, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.laws import one_power

    return one_power("n_tokens", "D_c", "alpha_D", "L", "scale", centers, irreducible)


ENTRY = LawEntry(
    name="kaplan-d",
    kind="loss",
    summary="loss against tokens, parameters unlimited",
    source="Kaplan et al. 2020, eq. 1.2",
    needs=("n_tokens",),
    build=build,
    irreducible="E",
    prefer=KAPLAN_CONVENTION,
)
