"""Runs on repeated data of Muennighoff et al. 2023. Must not import jax."""

from typing import Any

from gpt_jax.published.runs.active_sl import COMMIT, REPOSITORY, SPLITS, numbered, run_name
from gpt_jax.published.runs.entry import (
    NOT_SEEN,
    TABLE,
    Check,
    Columns,
    File,
    Form,
    Number,
    RunsEntry,
    parameter,
    raw,
)

_FOLDER = "benchmark/dataset/data_constrained_scaling_law"
_COLUMNS: Columns = {
    "run": run_name,
    "split": "split",
    "group": "group",
    "n_params": "params",
    "n_tokens": "tokens",
    "unique_tokens": "unique_tokens",
    "loss": "loss",
}
_PRINTED: dict[str, Any] = {
    "alpha": "0.3526596",
    "beta": "0.3526596",
    "E": "1.869",
    "R_D_star": "15.387756",
    "R_N_star": "5.309743",
}

ENTRY = RunsEntry(
    name="muennighoff2023",
    title="runs on unique and on repeated tokens",
    authors="Muennighoff et al. 2023",
    paper="2305.16264",
    licence=NOT_SEEN,
    repository=REPOSITORY,
    commit=COMMIT,
    forms=(
        Form(
            tuple(
                File(
                    f"{split}-00000-of-00001.parquet",
                    raw(REPOSITORY, COMMIT, f"{_FOLDER}/{split}-00000-of-00001.parquet"),
                )
                for split in SPLITS
            ),
            _COLUMNS,
            numbered,
        ),
    ),
    constants={"convention": "N all parameters, U distinct tokens"},
    rows=182,
    verified="columns and number of rows from the dataset card at the address; the files were not "
    "opened and the fit was not repeated here",
    checks=(
        Check(
            (
                (
                    "fit", TABLE, "--law", "data-constrained", "--tie", "alpha=beta",
                    "--bootstrap", "200",
                ),
            ),
            tuple(
                Number(symbol, printed, parameter(symbol)) for symbol, printed in _PRINTED.items()
            ),
            "Appendix A; E = exp(0.6254804)",
            "the paper fits alpha, beta, A, B, E to runs of one epoch first, here all at once",
        ),
    ),
    notes=(
        "a copy of the runs in huggingface/datablations, utils/parametric_fit.ipynb, in which they "
        "are no file of their own",
    ),
)  # fmt: skip
