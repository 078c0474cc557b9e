"""L = E + A / N'^alpha + B / D'^beta with repeated tokens, from Muennighoff et al. 2023.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import CHINCHILLA_DELTA, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.data_constrained import DataConstrained

    if irreducible is None:
        raise ValueError("data-constrained always has its irreducible loss E")
    return DataConstrained((centers[0], centers[1]))


ENTRY = LawEntry(
    name="data-constrained",
    kind="loss",
    summary="approach 3 with repeated tokens worth less",
    source="Muennighoff et al. 2023, section 3.1",
    needs=("n_params", "n_tokens", "unique_tokens"),
    build=build,
    irreducible="E",
    irreducible_by_default=True,
    delta=CHINCHILLA_DELTA,
)
