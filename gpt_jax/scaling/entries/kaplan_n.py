"""L = (N_c / N)^alpha_N, from Kaplan et al. 2020.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import KAPLAN_CONVENTION, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.laws import one_power

    return one_power("n_params", "N_c", "alpha_N", "L", "scale", centers, irreducible)


ENTRY = LawEntry(
    name="kaplan-n",
    kind="loss",
    summary="loss against parameters, data unlimited",
    source="Kaplan et al. 2020, eq. 1.1",
    needs=("n_params",),
    build=build,
    irreducible="E",
    prefer=KAPLAN_CONVENTION,
)
