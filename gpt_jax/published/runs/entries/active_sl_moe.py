"""Pool of mixture-of-experts runs of active-sl. Must not import jax."""

from gpt_jax.published.runs.active_sl import held_out_r2, pool
from gpt_jax.published.runs.entry import TABLE, Check, Number

ENTRY = pool(
    "moe",
    title="pool of routed runs and a dear target region",
    columns={
        "n_params": "dense_parameter_count",
        "n_experts": "num_experts",
        "loss": "loss_validation",
    },
    convention="N: parameters that a token meets; after Clark et al. 2022",
    sha256="99b1df7178ed2e7d947ed4aaf3cf6d6213c4b27193373adb922780b547f92f8f",
    rows=221,
    spread="0.04",
    checks=(
        Check(
            (
                (
                    "fit", TABLE, "--law", "routed-experts", "--bootstrap", "0",
                    "--where", 'split == "train"',
                ),
            ),
            (Number("R2 in the target region", ".81", held_out_r2),),
            "Table 2, All Data",
            "ten laws there, Clark et al.'s eq. 1 here",
        ),
    ),
)  # fmt: skip
