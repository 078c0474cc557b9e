"""N_opt = k C^a through the minima of IsoFLOP profiles, from Hoffmann et al. 2022.

Must not import jax.
"""

from gpt_jax.scaling.entry import LawEntry

ENTRY = LawEntry(
    name="chinchilla-isoflop",
    kind="isoflop",
    summary="approach 2: a local parabola in log N at each compute",
    source="Hoffmann et al. 2022, section 3.2",
    needs=("n_params", "n_tokens", "flops"),
)
