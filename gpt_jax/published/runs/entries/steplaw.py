"""Grids of learning rate and batch size of Step Law. Must not import jax."""

from gpt_jax.published.runs.entry import (
    NOT_STATED,
    Columns,
    File,
    Form,
    RunsEntry,
    product,
)
from gpt_jax.published.runs.step_law import exponents

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
    checks=(exponents("equation 1"),),
    notes=(
        "*near* is the way of the authors' code (fit_tool.py): with the 17 cells of this file it "
        "gives .197 for the rate's exponent in D (.1967 in issue 10 of their repository), not the "
        "printed .307; with the 42 cells of `active-sl-lr-bsz` it gives .308",
        "the cells leave the rate's exponent in D wide open: by other windows and by a surface it "
        "is 0.04 to 0.31 (gpt_jax/scaling/chains.md)",
        f"batch sizes are theirs times {_TOKENS_PER_SEQUENCE} tokens a sequence",
    ),
)  # fmt: skip
