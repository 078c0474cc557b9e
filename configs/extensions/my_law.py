"""A scaling law of your own: loss against the logarithm of the number of parameters.

gpt-jax fit runs.csv --extension configs/extensions/my_law.py --law log-n
"""

from gpt_jax.scaling.entries import LawEntry, register
from gpt_jax.scaling.formula_law import formula_law

register(
    LawEntry(
        name="log-n",
        kind="loss",
        summary="loss against the logarithm of size",
        source="an example",
        needs=("n_params",),
        build=lambda centers, irreducible: formula_law("c0 + c1*log(N)", "c0,c1<0"),
    )
)
