"""L = E + A / N^alpha + B / D^beta, from Hoffmann et al. 2022.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import CHINCHILLA_DELTA, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.laws import PowerSum

    head = f"{irreducible} + " if irreducible else ""
    return PowerSum(
        ("n_params", "n_tokens"),
        (("A", "alpha"), ("B", "beta")),
        f"L = {head}A/N^alpha + B/D^beta",
        "coefficient",
        centers,
        irreducible,
    )


ENTRY = LawEntry(
    name="chinchilla-parametric",
    kind="loss",
    summary="approach 3: E + A/N^alpha + B/D^beta",
    source="Hoffmann et al. 2022, section 3.3",
    needs=("n_params", "n_tokens"),
    build=build,
    irreducible="E",
    irreducible_by_default=True,
    delta=CHINCHILLA_DELTA,
)
