"""Grids of learning rate and batch size of Step Law. Must not import jax."""

from collections.abc import Sequence

from gpt_jax.published.runs.entry import (
    NOT_STATED,
    TABLE,
    Check,
    Columns,
    Document,
    File,
    Form,
    Number,
    RunsEntry,
    Value,
    product,
)

_TOKENS_PER_SEQUENCE = 2048
_COLUMNS: Columns = {
    "run": "exp_name",
    "step": "ti",
    "n_params_non_embedding": "N",
    "n_tokens": "D",
    "loss": "smooth loss",
    "loss_last": "loss",
    "learning_rate": "lr",
    "batch_tokens": product("bs", times=_TOKENS_PER_SEQUENCE),
    "setting_h": "h",
    "setting_ffnh": "ffnh",
    "setting_numh": "numh",
    "setting_numl": "numl",
}


def _exponent(what: str, variable: str) -> Number:
    printed = {
        ("learning_rate", "n_params"): "-0.713",
        ("learning_rate", "n_tokens"): "0.307",
        ("batch_tokens", "n_tokens"): "0.571",
    }[what, variable]

    def pick(documents: Sequence[Document]) -> Value:
        law = documents[0]["bowls"][what]
        return Value(law["exponents"][variable], law["intervals"][variable]["95"])

    letter = {"n_params": "N", "n_tokens": "D"}[variable]
    return Number(f"{what.partition('_')[0]}, exponent of {letter}", printed, pick)


ENTRY = RunsEntry(
    name="steplaw",
    title="learning rate x batch size grids in 17 cells of (N, D)",
    authors="Li et al. 2025",
    paper="2503.04715",
    licence=NOT_STATED,
    repository="step-law/steplaw",
    commit="32a8f4c",
    forms=(
        Form(
            (
                File(
                    "dense_lr_bs_loss.csv",
                    "https://github.com/step-law/steplaw/raw/32a8f4c/data/dense_lr_bs_loss.csv",
                ),
            ),
            _COLUMNS,
        ),
        Form(
            (
                File(
                    "steplaw_dense.csv.gz",
                    sha256="bcb3003a3585c332a7063fd3021422e2f699397772639cd97d3cb714349d4ce4",
                ),
            ),
            _COLUMNS,
        ),
    ),
    constants={
        "convention": "N without embeddings; loss smoothed at the end of training",
    },
    rows=1911,
    verified="rows, columns and fits from a copy (.gz) of the file at this commit; the address "
    "itself was not opened, and only the first digits of its commit are known",
    checks=(
        Check(
            (
                (
                    "fit", "hyperparameters", TABLE,
                    "--columns", "n_params=n_params_non_embedding",
                ),
            ),
            (
                _exponent("learning_rate", "n_params"),
                _exponent("learning_rate", "n_tokens"),
                _exponent("batch_tokens", "n_tokens"),
            ),
            "equation 1",
            "best rate and batch",
        ),
    ),
    notes=(
        "the cells leave the rate's exponent in D wide open: by other windows and by a surface it "
        "is 0.04 to 0.31 (gpt_jax/scaling/chains.md)",
        f"batch sizes are theirs times {_TOKENS_PER_SEQUENCE} tokens a sequence",
    ),
)  # fmt: skip
