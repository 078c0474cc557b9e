"""N_opt = k C^a through the lowest of all training curves, from Hoffmann et al. 2022.

Must not import jax.
"""

from gpt_jax.scaling.entry import LawEntry

ENTRY = LawEntry(
    name="chinchilla-envelope",
    kind="envelope",
    summary="approach 1: the lowest of all curves at each compute",
    source="Hoffmann et al. 2022, section 3.1",
    needs=("n_params", "n_tokens", "flops"),
)
