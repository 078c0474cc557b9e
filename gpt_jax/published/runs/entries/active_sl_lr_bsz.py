"""Pool of runs over learning rate and batch size of active-sl. Must not import jax."""

from itertools import combinations

from gpt_jax.published.runs.active_sl import held_out_r2, pool
from gpt_jax.published.runs.entry import TABLE, Check, Number, product
from gpt_jax.published.runs.step_law import exponents

_VARIABLES = ("learning_rate", "batch_tokens", "D", "n_params_non_embedding")
_LOGS = tuple(f"log({name})" for name in _VARIABLES)
_TERMS = (
    *_LOGS,
    *(f"{log}**2" for log in _LOGS),
    *(f"{one}*{other}" for one, other in combinations(_LOGS, 2)),
)
_FORMULA = "exp(c0 + " + " + ".join(f"c{k}*{term}" for k, term in enumerate(_TERMS, 1)) + ")"
ENTRY = pool(
    "lr_bsz",
    title="pool of runs over learning rate, batch size, N and D, and a dear target region",
    columns={
        "n_params_non_embedding": "non_embedding_param_size",
        "n_tokens": "data_size",
        "learning_rate": "lr",
        "batch_tokens": product("bsz", times=2048),
        "loss": "lm_loss",
    },
    convention="N without embeddings; batches of 2,048 tokens a sequence; after Step Law",
    sha256="b802c427a1e575ce7a84380bf640c93363adcaee5354f9755b45a66c66e2ab9a",
    rows=2819,
    spread="0.67",
    checks=(
        Check(
            (
                (
                    "fit", TABLE, "--formula", _FORMULA,
                    "--params", ",".join(f"c{k}" for k in range(len(_TERMS) + 1)),
                    "--objective", "l2", "--bootstrap", "0", "--where", 'split == "train"',
                ),
            ),
            (Number("R2 in the target region", ".04", held_out_r2),),
            "Table 2, All Data",
            "ten laws there, their first here: log loss quadratic in logs",
        ),
        exponents("Step Law (arXiv 2503.04715), equation 1"),
    ),
)  # fmt: skip
