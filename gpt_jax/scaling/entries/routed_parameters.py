"""log10 L = d + a log10 N + b log10 R + c log10 N log10 R, R = total over active parameters.

The law of routed experts with the ratio of total to active parameters in place of their number, as
Clark et al. 2022 (section 5) have it for any architecture, with active parameters for FLOPs; a
dense model has R = 1.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law

FORMULA = "10**(d + a*log10(N) + b*log10(T/N) + c*log10(N)*log10(T/N))"
PARAMETERS = "a,b,c,d"
COLUMNS = {"N": "n_params", "T": "n_params_total"}


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.formula_law import formula_law

    return formula_law(FORMULA, PARAMETERS, COLUMNS)


ENTRY = LawEntry(
    name="routed-parameters",
    kind="loss",
    summary="routed experts: loss against active and total parameters",
    source="after Clark et al. 2022 (arXiv:2202.01169), section 5",
    needs=("n_params", "n_params_total"),
    build=build,
)
