"""Laws planted in simulated tables, written out by hand as their papers print them."""

import numpy as np

from gpt_jax.scaling.catalog import LAWS
from gpt_jax.scaling.table import RunTable

TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
"""Near the refit of Chinchilla's runs by Besiroglu et al. 2024."""


def chinchilla_loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    t = TRUTH
    return t["E"] + t["A"] / n ** t["alpha"] + t["B"] / d ** t["beta"]


def optimal_size(compute: float) -> float:
    t = TRUTH
    ratio = t["alpha"] * t["A"] / (t["beta"] * t["B"])
    total = t["alpha"] + t["beta"]
    return ratio ** (1 / total) * (compute / 6) ** (t["beta"] / total)


FORMULAS = ("farseer", "over-training", "routed-experts", "routed-parameters", "vocabulary")
"""Laws that are formulas in text: see test_formula_laws.py."""
LOSS_LAWS = [n for n, entry in LAWS.items() if entry.kind == "loss" and n not in FORMULAS]

SYMBOLS = {
    "N_c": 8.8e13, "alpha_N": 0.076, "D_c": 5.4e13, "alpha_D": 0.095, "C_c": 2.7e28,
    "alpha_C": 0.05, "S_c": 2.1e3, "alpha_S": 0.76, "B_star": 2.1e8, "alpha_B": 0.21,
    "E": 1.7, "A": 482.0, "alpha": 0.35, "B": 2085.0, "beta": 0.37, "a": 900.0, "b": -0.15,
    "c": 1.2, "R_N_star": 5.31, "R_D_star": 15.39,
}  # fmt: skip


def formula(name: str, t: dict[str, float], r: RunTable, irreducible: bool) -> np.ndarray:
    """Each law as its paper prints it, written out by hand."""
    n, d, c = r["n_params"], r["n_tokens"], r["flops"]
    e = (t["c"] if name == "compute-power" else t["E"]) if irreducible else 0.0
    match name:
        case "kaplan-n":
            return e + (t["N_c"] / n) ** t["alpha_N"]
        case "kaplan-d":
            return e + (t["D_c"] / d) ** t["alpha_D"]
        case "kaplan-c":
            return e + (t["C_c"] / c) ** t["alpha_C"]
        case "kaplan-nd":
            inner = (t["N_c"] / n) ** (t["alpha_N"] / t["alpha_D"]) + t["D_c"] / d
            return e + inner ** t["alpha_D"]
        case "kaplan-ns":
            steps = (t["S_c"] / r["steps_min"]) ** t["alpha_S"]
            return e + (t["N_c"] / n) ** t["alpha_N"] + steps
        case "critical-batch":
            return t["B_star"] / r["loss"] ** (1 / t["alpha_B"])
        case "chinchilla-parametric":
            return e + t["A"] / n ** t["alpha"] + t["B"] / d ** t["beta"]
        case "compute-power":
            return e + t["a"] * c ** t["b"]
        case "data-constrained":
            u = np.minimum(r["unique_tokens"], d)
            # Compute-optimal N for D = U under L = E + A/N^alpha + B/D^beta and C = 6 N D.
            g = (t["alpha"] * t["A"] / (t["beta"] * t["B"])) ** (1 / (t["alpha"] + t["beta"]))
            needed = g * (g * u) ** (t["beta"] / t["alpha"])
            un = np.minimum(needed, n)
            worth_d = u + u * t["R_D_star"] * (1 - np.exp(-(d / u - 1) / t["R_D_star"]))
            worth_n = un + un * t["R_N_star"] * (1 - np.exp(-(n / un - 1) / t["R_N_star"]))
            return e + t["A"] / worth_n ** t["alpha"] + t["B"] / worth_d ** t["beta"]
    raise AssertionError(name)


def variants() -> list[tuple[str, bool]]:
    """(law, with an irreducible loss or not), as far as the law allows it."""
    found = []
    for name in LOSS_LAWS:
        if name != "data-constrained":
            found.append((name, False))
        if LAWS[name].irreducible:
            found.append((name, True))
    return found
