"""L = E + (a M^eta + b M^-eta) C^-eta, from Gadre et al. 2024.

M = D / N tokens per parameter, C = 6 N D: approach 3 with alpha = beta = 2 eta, so that models
trained on the same number of tokens per parameter lie on lines of one slope. a and b are
A 6^eta and B 6^eta.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import CHINCHILLA_DELTA, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law

FORMULA = "E + (a*(D/N)**eta + b*(D/N)**-eta) * (6*N*D)**-eta"
PARAMETERS = "a>0,b>0,eta>0,E>0"
COLUMNS = {"N": "n_params", "D": "n_tokens"}


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.formula_law import formula_law

    return formula_law(FORMULA, PARAMETERS, COLUMNS)


ENTRY = LawEntry(
    name="over-training",
    kind="loss",
    summary="approach 3 with tied exponents, by tokens per parameter",
    source="Gadre et al. 2024 (arXiv:2403.08540), eq. 4",
    needs=("n_params", "n_tokens"),
    build=build,
    delta=CHINCHILLA_DELTA,
)
