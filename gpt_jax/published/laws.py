"""The laws of Kaplan et al. and of GPT-4 beside ours.

Must not import jax.
"""

from collections.abc import Mapping
from typing import Any

from gpt_jax.published.compare import (
    FLOPS_PER_PF_DAY,
    Cell,
    Comparison,
    Row,
    load,
    not_comparable,
    number,
)
from gpt_jax.published.fits import KAPLAN, Fits, against_fit


def kaplan_table_2(fits: Fits) -> Comparison:
    key = "L(N,D) = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D (Table 2)"
    return _kaplan_table("Kaplan et al., Table 2: L(N, D)", key, "kaplan-nd", fits)


def kaplan_table_3(fits: Fits) -> Comparison:
    key = "L(N,S) = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S (Table 3)"
    return _kaplan_table("Kaplan et al., Table 3: L(N, S_min)", key, "kaplan-ns", fits)


def kaplan_power_laws(fits: Fits) -> Comparison:
    """The laws of one variable, in the paper's section 1.2."""
    data = load("kaplan2020")
    laws: dict[str, tuple[str, dict[str, str]]] = {
        "L(N) = (N_c/N)^alpha_N": ("kaplan-n", {}),
        "L(D) = (D_c/D)^alpha_D": ("kaplan-d", {}),
        "L(C_min) = (C_c/C_min)^alpha_C": (
            "kaplan-c",
            {"alpha_C_min": "alpha_C", "C_c_min_pf_days": "C_c"},
        ),
        "L(C), naive fixed batch": ("kaplan-c", {"C_c_pf_days": "C_c"}),
        "B_crit(L) = B_*/L^(1/alpha_B)": ("critical-batch", {"B_star_tokens": "B_star"}),
    }
    rows = []
    for formula, values in data["power_laws"].items():
        (law, names), cells = laws[formula], []
        for symbol, printed in values.items():
            unit = FLOPS_PER_PF_DAY if symbol.endswith("_pf_days") else 1
            ours = names.get(symbol, symbol)
            cells.append(against_fit(ours, printed * unit, fits, law, ours, KAPLAN))
        rows.append(Row(formula, tuple(cells)))
    return Comparison(
        "Kaplan et al., section 1.2: power laws in one variable",
        data["paper"],
        f"{_kaplan_conventions(data)}; C_min is the compute at batches far below the critical one: "
        f"runs of one batch size give the naive L(C)",
        tuple(rows),
        (data["oddities"]["conventions"],),
    )


def gpt4_loss_law(fits: Fits) -> Comparison:
    data, fit = load("gpt4"), fits.by_law.get("compute-power")
    cells: list[Cell] = []
    for symbol in ("a", "b", "c"):
        cell = not_comparable(symbol, "missing", "the report does not print it")
        ours = None if fit is None else fit.parameters[symbol]
        if ours is not None:
            cell = Cell(symbol, "missing", number(ours), cell.verdict)
        cells.append(cell)
    return Comparison(
        "GPT-4, section 3: L(C) = a C^b + c",
        data["paper"],
        data["loss_law"],
        (Row("final loss", tuple(cells)),),
    )


def _kaplan_table(title: str, key: str, law: str, fits: Fits) -> Comparison:
    data = load("kaplan2020")
    formula, _, _ = key.rpartition(" (")
    cells = tuple(against_fit(s, v, fits, law, s, KAPLAN) for s, v in data[key].items())
    return Comparison(
        title,
        data["paper"],
        _kaplan_conventions(data),
        (Row(formula, cells),),
        (data["oddities"]["conventions"],),
    )


def _kaplan_conventions(data: Mapping[str, Any]) -> str:
    conventions = data["conventions"]
    return (
        f"N: {conventions['N']}; C: {conventions['C']}; loss: {conventions['loss']}; scales (N_c, "
        f"D_c, ...) depend on corpus and tokenizer"
    )
