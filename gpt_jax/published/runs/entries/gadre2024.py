"""Over-trained models of Gadre et al. 2024. Must not import jax."""

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

_REPOSITORY = "mlfoundations/scaling"
_COMMIT = "041eb2f1b60fa6d985ac30d335c6b4d56d273ec0"
_SMALL = ("d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")
_TIMES_CHINCHILLA = ("0.25", "0.5", "1.0", "2.0", "4.0", "8.0", "16.0", "32.0")
_LARGE = {
    "c4_original": ("open_lm_1b-1.0", "open_lm_1b-4.0", "open_lm_7b-1.0"),
    "rpj": ("open_lm_1b-1.0", "open_lm_1b-32.0", "open_lm_7b-1.0"),
    "rw_original": ("open_lm_1b-1.0", "open_lm_1b-16.0", "open_lm_7b-1.0"),
}
_MISSING = ("c4_original-d=1024_l=24_h=8-32.0",)
_CORPORA = {"c4_original": "C4", "rpj": "RedPajama", "rw_original": "RefinedWeb"}
_VALIDATION = {
    "c4_val": "loss_c4",
    "openlm": "loss_openlm",
    "paloma_c4_en": "loss_paloma_c4_en",
    "paloma_dolma_100_programing_languages": "loss_paloma_code",
    "paloma_falcon-refinedweb": "loss_paloma_refinedweb",
    "paloma_ptb": "loss_paloma_ptb",
    "paloma_redpajama": "loss_paloma_redpajama",
    "de-en": "loss_de_en",
}
"""{folder of a validation set in `val_data`: our column}"""
_CHECKED = (
    *(f"{m}-1.0" for m in _SMALL), f"{_SMALL[0]}-16.0", "open_lm_1b-32.0", "open_lm_7b-1.0",
)  # fmt: skip
"""Runs of Table 2, which are fitted, and the two that are predicted."""


def _names() -> list[str]:
    names = [
        f"{corpus}-{name}"
        for corpus, large in _LARGE.items()
        for name in (*(f"{m}-{times}" for m in _SMALL for times in _TIMES_CHINCHILLA), *large)
    ]
    return [name for name in names if name not in _MISSING]


def _flat(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hyperparameters, and a loss for each validation set, beside the name."""
    flat = []
    for record in records:
        row = {**record["hyperparameters"], "name": record["name"]}
        row["corpus"] = _CORPORA[record["dataset_name"]]
        for result in record["results"]:
            folder = str(result["val_data"][0]).split("/")[-2]
            if folder in _VALIDATION:
                row[_VALIDATION[folder]] = result["loss"]
        row["loss"] = row.get("loss_c4")
        flat.append(row)
    return flat


def _columns(names: Sequence[str]) -> Columns:
    return {
        "run": "name",
        "n_params": "params",
        "n_params_non_embedding": "params_no_embed",
        "n_tokens": "tokens",
        "learning_rate": "lr",
        "loss": "loss",
        "corpus": "corpus",
        "setting_chinchilla_multiplier": "chinchilla_multiplier",
        **{column: column for column in _VALIDATION.values() if column in names},
    }


def _off(run: str, printed: str, place: int) -> Number:
    """Relative error in percent of the loss predicted for a run that was held out.

    place: of the run among the two by loss, the lowest first: a fit's document names no runs.
    """

    def pick(documents: Sequence[Document]) -> Value:
        runs = documents[0]["extrapolation"]["runs"]
        one = sorted(runs, key=lambda r: float(r["measured"]))[place]
        return Value(100 * abs(one["predicted"] / one["measured"] - 1))

    return Number(f"{run}: loss off by, %", printed, pick, computed=True)


ENTRY = RunsEntry(
    name="gadre2024",
    title="11M to 6.9B models, over-trained up to 32 times, on three corpora",
    authors="Gadre et al. 2024",
    paper="2403.08540",
    licence=NOT_SEEN,
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            tuple(
                File(f"{name}.json", raw(_REPOSITORY, _COMMIT, f"exp_data/models/{name}.json"))
                for name in _names()
            ),
            _columns,
            _flat,
        ),
    ),
    constants={"convention": "N all parameters; loss on C4's validation text"},
    rows=104,
    verified="seven of the 104 files were read: with their sizes, tokens and losses the check's "
    "numbers come out to all printed digits; names of the others are from the repository's list",
    checks=(
        Check(
            (
                (
                    "fit", TABLE, "--law", "over-training", "--objective", "l2",
                    "--space", "linear", "--bootstrap", "0", "--where", "corpus=RedPajama",
                    "--where", "run=" + "|".join(f"rpj-{name}" for name in _CHECKED),
                    "--where", "n_params < 1e9",
                ),
            ),
            (
                _off("1.4B, 900B tokens", ".7103", 1),
                _off("7B, 138B tokens", ".7320", 0),
            ),
            "Figure 1, printed by scaling_explorer.ipynb",
            "RedPajama",
        ),
    ),
)  # fmt: skip
