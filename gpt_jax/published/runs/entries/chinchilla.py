"""Chinchilla's runs as read off its figure 4 by Epoch. Must not import jax."""

from gpt_jax.published.compare import load
from gpt_jax.published.runs.entry import (
    NOT_STATED,
    TABLE,
    Check,
    File,
    Form,
    Record,
    RunsEntry,
    parameters,
    raw,
)

_REPOSITORY = "epoch-research/analyzing-chinchilla"
_COMMIT = "92258837425e1b5f2851d624287f0120583a3d0e"
_COPY = raw("Besiroglu/data", "02783aeb768463ef2635c061a961068ff3e93949", "svg_extracted_data.csv")
_REFIT = load("besiroglu2024")["refit"]


def _run(record: Record) -> str:
    return f"{record['x']},{record['y']}"


def _tokens(record: Record) -> float:
    return float(record["Training FLOP"]) / (6 * float(record["Model Size"]))


ENTRY = RunsEntry(
    name="chinchilla",
    title="runs of Hoffmann et al. 2022 as read off its figure 4",
    authors="Hoffmann et al. 2022; Besiroglu et al. 2024",
    paper="2404.10102",
    licence=NOT_STATED,
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            (
                File(
                    "svg_extracted_data.csv",
                    raw(_REPOSITORY, _COMMIT, "data/svg_extracted_data.csv"),
                    "193478df4e90f040016431996c45682659306840ecdadf83cfb9cd5ca0aa1b30",
                    (_COPY,),
                ),
            ),
            {
                "run": _run,
                "n_params": "Model Size",
                "n_tokens": _tokens,
                "flops": "Training FLOP",
                "loss": "loss",
            },
        ),
    ),
    constants={
        "convention": "N all parameters; D = C / (6 N); losses by colour, to about 0.01",
        "corpus": "MassiveText",
    },
    rows=245,
    verified="the whole file of the second address was read, its digest computed and the fit "
    "repeated; that every size and compute follows from its place in the figure was checked to 14 "
    "digits; the first address holds a file of that name and was not opened",
    checks=(
        Check(
            (
                (
                    "fit", TABLE, "--law", "chinchilla-parametric", "--drop-worst", "5",
                    "--bootstrap", "1000",
                ),
            ),
            parameters({s: str(_REFIT[s]) for s in ("E", "A", "B", "alpha", "beta")}),
            "the refit, without the five runs of highest loss",
            "approach 3",
        ),
    ),
    notes=("names of runs are their places in the figure",),
)  # fmt: skip
