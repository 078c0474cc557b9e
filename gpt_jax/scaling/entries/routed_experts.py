"""log10 L = d + a log10 N + b log10 E' + c log10 N log10 E', from Clark et al. 2022.

N counts the parameters of the dense model (those that a token uses), E the experts, 1 of a dense
model. E' saturates on both sides: 1 / E' = 1 / (E - 1 + 1 / (1/E_start - 1/E_max)) + 1 / E_max,
which is E_start for a dense model and at most E_max. Without saturation: --fix E_start=1,E_max=1e9.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law

FORMULA = (
    "10**(d + a*log10(N) - (b + c*log10(N)) * log10(1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max))"
)
PARAMETERS = "a,b,c,d,1<E_start<100,3<E_max<1e9"
COLUMNS = {"N": "n_params", "E": "n_experts"}


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.formula_law import formula_law

    return formula_law(FORMULA, PARAMETERS, COLUMNS)


ENTRY = LawEntry(
    name="routed-experts",
    kind="loss",
    summary="routed experts: loss against dense size and their number",
    source="Clark et al. 2022 (arXiv:2202.01169), eq. 1",
    needs=("n_params", "n_experts"),
    build=build,
)
