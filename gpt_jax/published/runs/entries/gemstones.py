"""Gemstones: models of many widths and depths. Must not import jax."""

from typing import Any

from gpt_jax.published.runs.entry import (
    NOT_SEEN,
    TABLE,
    Check,
    File,
    Form,
    RunsEntry,
    parameters,
    raw,
)

_REPOSITORY = "mcleish7/gemstone-scaling-laws"
_COMMIT = "1fb97a26b3a4ee647475ee3b46d67413b1844405"
_NAME = "wandb_df_for_fitting_hot_477.jsonl"


def _trained(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows after the first step."""
    return [record for record in records if record["step"] > 0]


ENTRY = RunsEntry(
    name="gemstones",
    title="losses along runs of models of many widths and depths",
    authors="McLeish et al. 2025",
    paper="2502.06857",
    licence=NOT_SEEN,
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            (File(_NAME, raw(_REPOSITORY, _COMMIT, f"wandb_dfs/{_NAME}")),),
            {
                "run": "run_name",
                "step": "step",
                "n_params": "params_active_precise",
                "n_tokens": "tokens",
                "loss": "final_loss",
                "setting_width": "width",
                "setting_depth": "depth",
            },
            _trained,
        ),
    ),
    constants={"convention": "N with embeddings; rows before a cooldown"},
    rows=None,
    verified="the file is in the repository's list; its columns are from plotters/approach_1.py; "
    "it was not opened and the fit was not repeated here",
    checks=(
        Check(
            (("fit", TABLE, "--law", "chinchilla-envelope", "--bootstrap", "200"),),
            parameters({"a": "0.499380216082636", "b": "0.4809888232129201"}),
            "parameters/approach_1_linear_regression_params.json, ..._tokens.json",
            "approach 1: a convex hull over exact FLOPs there, the envelope over 6 N D here",
        ),
    ),
)
