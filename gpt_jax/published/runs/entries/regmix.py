"""Proxy models on mixtures of the Pile of RegMix. Must not import jax."""

from collections.abc import Sequence
from typing import Any

from gpt_jax.published.runs.entry import (
    NOT_SEEN,
    TABLE,
    Check,
    Columns,
    Document,
    File,
    Form,
    Number,
    RunsEntry,
    Value,
    raw,
)

_REPOSITORY = "sail-sg/regmix"
_COMMIT = "b1bc0b41040667ab813d6d9b2dd0b37186b198cc"
_SHARE, _LOSS = "train_the_pile_", "metric/the_pile_"
_MIXTURES, _LOSSES = "train_mixture_1m.csv", "train_pile_loss_1m.csv"


def _joined(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shares and losses of one index in one record."""
    joined: dict[str, dict[str, Any]] = {}
    for record in records:
        joined.setdefault(str(record["index"]), {}).update(record)
    whole = [row for row in joined.values() if any(name.startswith(_LOSS) for name in row)]
    return [row for row in whole if any(name.startswith(_SHARE) for name in row)]


def _columns(names: Sequence[str]) -> Columns:
    shares = {
        f"share_{name.removeprefix(_SHARE)}": name for name in names if name.startswith(_SHARE)
    }
    losses = {
        f"loss_{name.removeprefix(_LOSS).removesuffix('_val_loss')}": name
        for name in names
        if name.startswith(_LOSS)
    }
    return {"run": "index", **shares, **losses}


def _web_share(documents: Sequence[Document]) -> Value:
    return Value(documents[0]["best_mixture"]["shares"]["share_pile_cc"])


ENTRY = RunsEntry(
    name="regmix",
    title="1M models on mixtures of 17 domains of the Pile",
    authors="Liu et al. 2024",
    paper="2407.01492",
    licence=NOT_SEEN,
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            tuple(
                File(name, raw(_REPOSITORY, _COMMIT, f"data/{name}"))
                for name in (_MIXTURES, _LOSSES)
            ),
            _columns,
            _joined,
        ),
    ),
    constants={"convention": "models of 1M parameters and 1B tokens", "corpus": "the Pile"},
    rows=None,
    verified="columns from files of the same kind in the repository (test_mixture_1B.csv, "
    "test_pile_loss_60m.csv), which were read; these two were not, and the fit was not repeated",
    checks=(
        Check(
            (
                (
                    "fit", "mixture", TABLE, "--shares", "share_*", "--losses", "loss_pile_cc",
                ),
            ),
            (Number("share of Pile-CC in the best mixture", "0.8701291419934237", _web_share),),
            "mixture_config/config_1b/regmix.yaml",
            "gradient-boosted trees there, the exponential law here",
        ),
    ),
)  # fmt: skip
