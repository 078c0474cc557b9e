"""Routed language models of Clark et al. 2022. Must not import jax."""

from collections.abc import Sequence
from typing import Any

from gpt_jax.published.runs.entry import (
    TABLE,
    Check,
    Columns,
    File,
    Form,
    RunsEntry,
    parameters,
    raw,
)

_REPOSITORY = "google-deepmind/scaling_laws_for_routing"
_COMMIT = "42da0c392b127df2c01fa7b705f72396050d05e5"
_SETS = ("c4", "curation_corpus", "lambada", "pile", "wikitext103")
_SETTINGS = (
    "d_model", "num_blocks", "num_heads", "kqv_size", "flop_increase", "k", "router_type",
    "routing_frequency", "model_size_label",
)  # fmt: skip
_SYMBOLS = ("a", "b", "c", "d", "E_start", "E_max")
_PRINTED = {
    "S-Base": ("-0.082", "-0.108", "0.009", "1.104", "1.847", "314.478"),
    "RL-R": ("-0.083", "-0.126", "0.012", "1.111", "1.880", "469.982"),
    "Hash": ("-0.087", "-0.136", "0.012", "1.157", "4.175", "477.741"),
}


def _last(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last evaluation of each run."""
    last: dict[str, dict[str, Any]] = {}
    for record in records:
        run = record["hyper_id"]
        if run not in last or float(record["step"]) >= float(last[run]["step"]):
            last[run] = record
    return list(last.values())


def _columns(names: Sequence[str]) -> Columns:
    return {
        "run": "hyper_id",
        "step": "step",
        "n_params": "dense_parameter_count",
        "n_params_total": "total_parameter_count",
        "n_experts": "num_experts",
        "loss": "loss_validation",
        "seed": "seed",
        **{f"loss_{name}": f"loss_{name}" for name in _SETS},
        **{f"setting_{name}": name for name in _SETTINGS},
    }


def _check(router: str) -> Check:
    command = (
        "fit", TABLE, "--law", "routed-experts", "--bootstrap", "200",
        "--where", "setting_routing_frequency=0.5", "--where", "setting_k=1",
        "--where", "seed=42", "--where", f"setting_router_type={router}|Dense",
    )  # fmt: skip
    numbers = parameters(dict(zip(_SYMBOLS, _PRINTED[router], strict=True)))
    return Check((command,), numbers, "Table 3", f"{router}, eq. 1")


ENTRY = RunsEntry(
    name="clark2022",
    title="routed and dense models by size and number of experts",
    authors="Clark et al. 2022",
    paper="2202.01169",
    licence="Apache-2.0 (code), CC-BY-4.0 (other materials)",
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            (File("curves.csv.gz", raw(_REPOSITORY, _COMMIT, "data/curves.csv.gz")),),
            _columns,
            _last,
        ),
        Form(
            (
                File(
                    "clark2022_routing.csv.gz",
                    sha256="88828a7625b65b4a8bd22fb1c2848a519ebf0b2800b3e75d51312f4be70da4ae",
                ),
            ),
            _columns,
            _last,
            "a copy with the last evaluation of each run",
        ),
    ),
    constants={
        "convention": "N: parameters that a token meets; loss on held-out training data",
    },
    rows=223,
    verified="rows, columns and fits from the copy; path and columns of the authors' file from its "
    "README at the commit; that file itself was not opened",
    checks=tuple(_check(router) for router in _PRINTED),
    notes=("no training tokens and no FLOPs of training are in the authors' table",),
)
