"""L = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S, from Kaplan et al. 2020.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import KAPLAN_CONVENTION, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.laws import PowerSum

    head = f"{irreducible} + " if irreducible else ""
    return PowerSum(
        ("n_params", "steps_min"),
        (("N_c", "alpha_N"), ("S_c", "alpha_S")),
        f"L = {head}(N_c/N)^alpha_N + (S_c/S_min)^alpha_S",
        "scale",
        centers,
        irreducible,
    )


ENTRY = LawEntry(
    name="kaplan-ns",
    kind="loss",
    summary="loss against parameters and steps",
    source="Kaplan et al. 2020, eq. 1.6",
    needs=("n_params", "steps_min"),
    build=build,
    irreducible="E",
    prefer=KAPLAN_CONVENTION,
)
