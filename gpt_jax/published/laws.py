"""Published scaling laws beside ours: fitted coefficients, exponents and what follows from them.

Ours are the fits of `gpt-jax fit --json`; where none is given, only what follows from the paper's
own numbers is compared. Must not import jax.
"""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from gpt_jax.published.compare import (
    FLOPS_PER_PF_DAY,
    Cell,
    Comparison,
    Row,
    compare,
    load,
    not_comparable,
    number,
    rounding,
)

Fits = Mapping[str, Mapping[str, Any]]
"""{law: its part of the JSON of `gpt-jax fit --json`}"""

NO_FIT = "no fit of ours is given (--fits FITS.json of `gpt-jax fit --law {law} --json`)"
CONFIDENCE = "95"


def read_fits(path: Path) -> Fits:
    """The fits in a file that `gpt-jax fit --json` wrote; raises ValueError for another file."""
    if not path.is_file():
        raise ValueError(f"--fits {path}: no such file; `gpt-jax fit ... --json FILE` writes one")
    try:
        document = json.loads(path.read_text())
    except json.JSONDecodeError:
        raise ValueError(f"--fits {path}: not a JSON file of `gpt-jax fit --json`") from None
    fits = document.get("fits", [document]) if isinstance(document, dict) else []
    if not fits or not all(isinstance(f, dict) and "law" in f for f in fits):
        raise ValueError(f"--fits {path}: not a JSON file of `gpt-jax fit --json`")
    return {fit["law"]: fit for fit in fits}


def chinchilla_table_2(fits: Fits) -> Comparison:
    """Exponents of N_opt and D_opt; approach 3's and Kaplan's also from the printed laws."""
    data = load("chinchilla")
    approaches = ("chinchilla-envelope", "chinchilla-isoflop", "chinchilla-parametric")
    rows = []
    for (label, a, b), law in zip(data["table_2_exponents"]["rows"][:3], approaches, strict=True):
        cells = [against_fit("a", a, fits, law, "a"), against_fit("b", b, fits, law, "b")]
        if law == "chinchilla-parametric":
            alpha, beta = (data["approach_3_printed"][k] for k in ("alpha", "beta"))
            total = float(alpha) + float(beta)
            slack = rounding(alpha, beta) / 2
            cells.append(compare("a from the printed law", a, float(beta) / total, slack))
            cells.append(compare("b from the printed law", b, float(alpha) / total, slack))
        rows.append(Row(label, tuple(cells)))
    label, a, b = data["table_2_exponents"]["rows"][3]
    kaplan = load("kaplan2020")["compute_optimal"]["exponents"]
    rows.append(
        Row(
            label,
            (
                compare("a", a, float(kaplan["N"])),
                compare("b = exponents of B and S", b, float(kaplan["B"] + kaplan["S"])),
            ),
        )
    )
    return Comparison(
        "Chinchilla, Table 2: N_opt ~ C^a, D_opt ~ C^b",
        data["paper"],
        "N counts all parameters (Kaplan: without embeddings); C = 6 N D; a fit of ours matches "
        "if the printed value lies in its 95% interval",
        tuple(rows),
        (data["oddities"]["approach_3_printed"],),
    )


def chinchilla_approach_3(fits: Fits) -> Comparison:
    data = load("chinchilla")
    printed = data["approach_3_printed"]
    cells = tuple(
        against_fit(symbol, printed[symbol], fits, "chinchilla-parametric", symbol)
        for symbol in ("E", "A", "B", "alpha", "beta")
    )
    return Comparison(
        "Chinchilla, approach 3: L = E + A/N^alpha + B/D^beta",
        data["paper"],
        f"N counts all parameters; {printed['loss']}; E, A and B depend on corpus and tokenizer",
        (Row("parametric fit", cells),),
        (data["oddities"]["approach_3_printed"],),
    )


def chinchilla_table_a3(_: Fits) -> Comparison:
    """Approach 2's optimal tokens, beside those of the printed law of approach 3."""
    data = load("chinchilla")
    law = {k: float(v) for k, v in data["approach_3_printed"].items() if k != "loss"}
    rows = []
    for params, tokens in data["table_A3_approach_2_tokens"]["rows"]:
        # dL/dN = dL/dD under C = 6 N D: alpha A N^-alpha = beta B D^-beta.
        slope = law["alpha"] * law["A"] / float(params) ** law["alpha"]
        ours = (law["beta"] * law["B"] / slope) ** (1 / law["beta"])
        cell = compare("tokens, printed approach 3", tokens, ours)
        rows.append(Row(f"{float(params) / 1e9:g}B", (cell,)))
    return Comparison(
        "Chinchilla, Table A3: optimal tokens by approach 2",
        data["paper"],
        "N counts all parameters; ours: the optimum of the printed approach 3",
        tuple(rows),
        (data["oddities"]["approach_3_printed"],),
    )


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
        "B_crit(L) = B_*/L^(1/alpha_B)": ("critical-batch", {"B_star_tokens": "B_star"}),
    }
    rows = []
    for formula, values in data["power_laws"].items():
        law, names = laws.get(formula, ("", {}))
        cells = []
        for symbol, printed in values.items():
            if not law:
                reason = "its compute is that of a fixed batch size, which we do not fit"
                cells.append(not_comparable(symbol, printed, reason))
                continue
            unit = FLOPS_PER_PF_DAY if symbol.endswith("_pf_days") else 1
            ours = names.get(symbol, symbol)
            cells.append(against_fit(ours, printed * unit, fits, law, ours))
        rows.append(Row(formula, tuple(cells)))
    return Comparison(
        "Kaplan et al., section 1.2: power laws in one variable",
        data["paper"],
        _kaplan_conventions(data),
        tuple(rows),
        (data["oddities"]["conventions"],),
    )


def gpt4_loss_law(fits: Fits) -> Comparison:
    data = load("gpt4")
    cells: list[Cell] = []
    for symbol in ("a", "b", "c"):
        cell = not_comparable(symbol, "missing", "the report does not print it")
        if "compute-power" in fits:
            ours = number(fits["compute-power"]["parameters"][symbol])
            cell = Cell(symbol, "missing", ours, cell.verdict)
        cells.append(cell)
    return Comparison(
        "GPT-4, section 3: L(C) = a C^b + c",
        data["paper"],
        data["loss_law"],
        (Row("final loss", tuple(cells)),),
    )


def against_fit(name: str, printed: Decimal, fits: Fits, law: str, symbol: str) -> Cell:
    """The printed value and our fit's, which matches if its 95% interval holds the printed one."""
    if law not in fits:
        return not_comparable(name, printed, NO_FIT.format(law=law))
    fit = fits[law]
    if symbol not in fit["parameters"]:
        return not_comparable(name, printed, f"our fit of {law} has no {symbol}")
    ours = fit["parameters"][symbol]
    low, high = fit["intervals"].get(symbol, {}).get(CONFIDENCE, (ours, ours))
    low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
    reference = float(printed)
    shown = f"{number(ours)} [{low:.4g}, {high:.4g}]"
    if low <= reference <= high:
        return Cell(name, number(reference), shown, "matches")
    return Cell(name, number(reference), shown, f"differs by {100 * (ours / reference - 1):+.3g}%")


def _kaplan_table(title: str, key: str, law: str, fits: Fits) -> Comparison:
    data = load("kaplan2020")
    formula, _, _ = key.rpartition(" (")
    cells = tuple(against_fit(s, v, fits, law, s) for s, v in data[key].items())
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
