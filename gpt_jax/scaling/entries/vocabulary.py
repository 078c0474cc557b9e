"""L_u = -E + A1 / N_nv^alpha1 + A2 / N_v^alpha2 + B / D^beta, from Tao et al. 2024.

N_nv and N_v are the parameters without and of the vocabulary, L_u the loss less that of the
tokens' own frequencies, which makes vocabularies comparable. It is mostly negative: residuals are
of L_u itself.

Must not import jax.
"""

from typing import TYPE_CHECKING

from gpt_jax.scaling.entry import CHINCHILLA_DELTA, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law

FORMULA = "A1*V**-alpha1 + A2*W**-alpha2 + B*D**-beta - E"
PARAMETERS = "A1>0,alpha1>0,A2>0,alpha2>0,B>0,beta>0,E>0"
COLUMNS = {"V": "n_params_non_vocab", "W": "n_params_vocab", "D": "n_tokens"}


def build(centers: tuple[float, ...], irreducible: str | None) -> "Law":
    from gpt_jax.scaling.formula_law import formula_law

    return formula_law(FORMULA, PARAMETERS, COLUMNS, target="L_u")


ENTRY = LawEntry(
    name="vocabulary",
    kind="loss",
    summary="loss against parameters, those of the vocabulary, and tokens",
    source="Tao et al. 2024 (arXiv:2407.13623), approach 3",
    needs=("n_params_non_vocab", "n_params_vocab", "n_tokens"),
    build=build,
    target="unigram_normalised_loss",
    delta=CHINCHILLA_DELTA,
    space="linear",
)
