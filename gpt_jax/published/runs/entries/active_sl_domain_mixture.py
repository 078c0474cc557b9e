"""Pool of runs over mixtures of domains of active-sl. Must not import jax."""

from collections.abc import Sequence

from gpt_jax.published.runs.active_sl import pool
from gpt_jax.published.runs.entry import TABLE, Check, Document, Number, Value

_SIZES = ("70M", "160M", "305M", "410M")
_DOMAINS = range(1, 6)


def _mean_r2(documents: Sequence[Document]) -> Value:
    """Mean over sizes and domains of R2 on the runs held out."""
    found = [
        domain["r2_held_out"] for document in documents for domain in document["domains"].values()
    ]
    return Value(sum(found) / len(found))


ENTRY = pool(
    "domain_mixture",
    title="pool of runs over shares of five domains at four sizes",
    columns={
        **{f"share_domain_{k}": f"proportion_domain_{k}" for k in _DOMAINS},
        **{f"loss_domain_{k}": f"loss_domain_{k}" for k in _DOMAINS},
    },
    convention="sizes are names of groups",
    sha256="bc3f9179657907f14641d043ef0a0c415a4ff6beb60e9a357aace95f239adf95",
    rows=104,
    spread="0.51",
    checks=(
        Check(
            tuple(
                (
                    "fit", "mixture", TABLE, "--shares", "share_*", "--losses", "loss_*",
                    "--where", f"group={size}", "--held-out", "split=test",
                )
                for size in _SIZES
            ),
            (Number("R2 of runs held out", ".81", _mean_r2),),
            "Table 2, All Data",
            "ten laws there, the exponential law here",
        ),
    ),
)  # fmt: skip
