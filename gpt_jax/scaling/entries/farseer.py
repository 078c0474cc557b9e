"""L = e^(a3 N^gamma + b3) + e^(a2 N^beta + b2) D^(-e^(a1 N^alpha + b1)), Li et al. 2025 (Farseer).

The exponent of D and the coefficient before it change with N; approach 3 has them constant. Nine
parameters: many runs over wide ranges of N and D.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.farseer import Farseer

    return Farseer(centers[0])


ENTRY = LawEntry(
    name="farseer",
    kind="loss",
    summary="the exponent and the coefficient of D change with N; nine parameters",
    source="Li et al. 2025 (arXiv:2506.10972)",
    needs=("n_params", "n_tokens"),
    build=build,
)
