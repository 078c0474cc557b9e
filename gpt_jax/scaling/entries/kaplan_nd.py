"""L = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D, from Kaplan et al. 2020.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import KAPLAN_CONVENTION, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.laws import KaplanND

    return KaplanND((centers[0], centers[1]), irreducible)


ENTRY = LawEntry(
    name="kaplan-nd",
    kind="loss",
    summary="loss against parameters and tokens",
    source="Kaplan et al. 2020, eq. 1.5",
    needs=("n_params", "n_tokens"),
    build=build,
    irreducible="E",
    prefer=KAPLAN_CONVENTION,
)
