"""B_crit = B_star / L^(1 / alpha_B), from Kaplan et al. 2020.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.laws import one_power

    return one_power("loss", "B_star", "alpha_B", "B_crit", "inverse", centers, irreducible)


ENTRY = LawEntry(
    name="critical-batch",
    kind="loss",
    summary="critical batch size against loss",
    source="Kaplan et al. 2020, eq. 1.4",
    needs=("critical_batch_tokens",),
    build=build,
    variables=("loss",),
    target="critical_batch_tokens",
)
