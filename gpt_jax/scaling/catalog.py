"""Laws built for a table: the entry of a name, with its coordinates centred on the runs.

Must not import jax.
"""

import numpy as np

from gpt_jax.scaling.entries import LAWS, LawEntry, find_law, register
from gpt_jax.scaling.entry import CHINCHILLA_DELTA, KAPLAN_CONVENTION, SQUARES
from gpt_jax.scaling.laws import Law
from gpt_jax.scaling.table import RunTable

__all__ = [
    "CHINCHILLA_DELTA",
    "KAPLAN_CONVENTION",
    "LAWS",
    "SQUARES",
    "LawEntry",
    "build_law",
    "find_law",
    "register",
]


def build_law(entry: LawEntry, runs: RunTable, irreducible: bool | None) -> Law:
    """The law with its coordinates centred on the runs.

    irreducible: with or without an irreducible loss; none = as the paper has it.
    """
    wanted = entry.irreducible_by_default if irreducible is None else irreducible
    if wanted and entry.irreducible is None:
        raise ValueError(f"{entry.name} has no irreducible term; leave --irreducible out")
    assert entry.build is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log(runs[name]) for name in entry.variables or entry.needs]
    centers = tuple(float(log[np.isfinite(log)].mean()) for log in logs)
    law = entry.build(centers, entry.irreducible if wanted else None)
    if irreducible is False and entry.irreducible is None and "E" in law.symbols:
        raise ValueError(f"{entry.name} always has its E; --fix E=0 takes it away")
    return law
