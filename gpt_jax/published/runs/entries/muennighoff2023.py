"""Runs on repeated data of Muennighoff et al. 2023. Must not import jax."""

import math
import re
from collections.abc import Mapping
from typing import Any

from gpt_jax.published.runs.entry import (
    NOT_SEEN,
    TABLE,
    Check,
    File,
    Form,
    Number,
    RunsEntry,
    parameter,
    raw,
)

_REPOSITORY = "huggingface/datablations"
_COMMIT = "13701315b163f1c54642b94ad237b2699187c3ee"
_LINE = re.compile(r"(\w+) ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)\n?")
"""Name, N, D, U and loss, as a cell of the notebook prints them."""
_A, _B, _E, _ALPHA = 6.255414, 7.3049974, 0.6254804, 0.3526596
"""log A, log B, log E and alpha = beta of the paper's fit to Chinchilla's runs on C4."""


def _printed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs that the first such cell of the notebook has printed, in its order."""
    (notebook,) = records
    for cell in notebook["cells"]:
        found = _runs(cell)
        if found:
            return found
    return []


def _runs(cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = [line for output in cell.get("outputs", ()) for line in output.get("text", ())]
    matches = [match for match in map(_LINE.fullmatch, lines) if match]
    names = ("name", "n_params", "n_tokens", "unique_tokens", "loss")
    return [
        {**dict(zip(names, match.groups(), strict=True)), "run": f"{match[1]} {k}"}
        for k, match in enumerate(matches, 1)
    ]


ENTRY = RunsEntry(
    name="muennighoff2023",
    title="runs on unique and on repeated tokens",
    authors="Muennighoff et al. 2023",
    paper="2305.16264",
    licence=NOT_SEEN,
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            (
                File(
                    "parametric_fit.ipynb",
                    raw(_REPOSITORY, _COMMIT, "utils/parametric_fit.ipynb"),
                ),
            ),
            {name: name for name in ("run", "n_params", "n_tokens", "unique_tokens", "loss")},
            _printed,
        ),
    ),
    constants={"convention": "N all parameters, U distinct tokens", "corpus": "C4"},
    rows=296,
    verified="the list of runs in the notebook, and that its cell prints a line of this form for "
    "each; the notebook (3.7 million characters) was not read whole, so its digest is not known",
    checks=(
        Check(
            (
                (
                    "fit", TABLE, "--law", "data-constrained",
                    "--fix", f"A={math.exp(_A):.6g},B={math.exp(_B):.6g},E={math.exp(_E):.6g}",
                    "--fix", f"alpha={_ALPHA},beta={_ALPHA}", "--bootstrap", "200",
                ),
            ),
            (
                Number("R_D*", "15.387756", parameter("R_D_star")),
                Number("R_N*", "5.309743", parameter("R_N_star")),
            ),
            "Appendix A",
            "A, B, E, alpha = beta as printed; 182 runs there, all here",
        ),
    ),
    notes=(
        "the name of one run, 4b284b12bc4opt2, is taken apart wrongly by the notebook (D 84.1e9, U "
        "2.2e9 for 84e9 and 12e9); it stands as it is printed there",
        "which 182 runs the paper fits is not known here",
    ),
)  # fmt: skip
