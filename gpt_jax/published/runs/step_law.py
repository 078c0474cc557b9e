"""Checks of Step Law's equation 1 (arXiv 2503.04715), of the two tables with its grids.

Must not import jax.
"""

from collections.abc import Sequence

from gpt_jax.published.runs.entry import TABLE, Check, Document, Number, Value

PRINTED = {
    ("learning_rate", "n_params"): "-0.713",
    ("learning_rate", "n_tokens"): "0.307",
    ("batch_tokens", "n_tokens"): "0.571",
}
"""Exponents of the paper's equation 1."""
NAMES = {"learning_rate": "rate", "batch_tokens": "batch", "n_params": "N", "n_tokens": "D"}


WAYS = ("near", "bowls")
"""Through the runs near the best of a cell, as the authors' code has it; then ours."""


def exponents(where: str) -> Check:
    """The check of those exponents by two ways of `gpt-jax fit hyperparameters`."""

    def number(way: str, what: str, variable: str) -> Number:
        def pick(documents: Sequence[Document]) -> Value:
            law = documents[0][way][what]
            return Value(law["exponents"][variable], law["intervals"][variable]["95"])

        name = f"by {way}: {NAMES[what]}, exponent of {NAMES[variable]}"
        return Number(name, PRINTED[what, variable], pick)

    command = (
        "fit", "hyperparameters", TABLE, "--columns", "n_params=n_params_non_embedding",
    )  # fmt: skip
    numbers = tuple(number(way, *key) for way in WAYS for key in PRINTED)
    return Check((command,), numbers, where, "best rate and batch")
