"""How long a fit and its bootstrap take, and how often intervals hold the truth, for every law.

    python tools/benchmark_fit.py                       # CPU seconds for 250 runs, 4,000 refits
    python tools/benchmark_fit.py --coverage 200        # simulated studies of each law
    python tools/benchmark_fit.py --coverage 200 --laws routed-experts,vocabulary

The runs are simulated under each law at the parameters of TRUTHS with errors of 0.5%. Coverage is
the share of studies in which an interval holds the truth: the mean over a law's parameters, and
the lowest and highest of any.
"""

import argparse
import math
import time
from collections.abc import Mapping

import numpy as np

from gpt_jax.scaling.catalog import LAWS, LawEntry, build_law
from gpt_jax.scaling.constraints import log_variables
from gpt_jax.scaling.fit import clusters, estimate_uncertainty, fit_law
from gpt_jax.scaling.table import RunTable, make_table
from gpt_jax.scaling.uncertainty import LEVELS, bootstrap

SIGMA = 0.005
N_RUNS = 250
N_REFITS = 4000
STUDY_RUNS, STUDY_REFITS = 120, 400

RANGES = {
    "n_params": (2e7, 1e10),
    "n_tokens": (1e9, 3e11),
    "flops": (1e17, 1e22),
    "steps_min": (1e3, 1e6),
    "unique_tokens": (3e8, 3e11),
    "n_experts": (1, 512),
    "n_params_total": (2e8, 1e11),
    "n_params_non_vocab": (2e7, 1e10),
    "n_params_vocab": (1e6, 3e8),
    "loss": (2.0, 5.0),
}
_APPROACH_3 = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
TRUTHS: dict[str, dict[str, float]] = {
    "kaplan-n": {"N_c": 8.8e13, "alpha_N": 0.076},
    "kaplan-d": {"D_c": 5.4e13, "alpha_D": 0.095},
    "kaplan-c": {"C_c": 2.7e28, "alpha_C": 0.05},
    "kaplan-nd": {"N_c": 8.8e13, "alpha_N": 0.076, "D_c": 5.4e13, "alpha_D": 0.095},
    "kaplan-ns": {"N_c": 6.5e13, "alpha_N": 0.077, "S_c": 2.1e3, "alpha_S": 0.76},
    "critical-batch": {"B_star": 2.1e8, "alpha_B": 0.21},
    "compute-power": {"a": 900.0, "b": -0.15, "c": 1.2},
    "chinchilla-parametric": _APPROACH_3,
    "data-constrained": _APPROACH_3 | {"R_N_star": 5.31, "R_D_star": 15.39},
    "over-training": {"E": 1.51, "a": 141.0, "b": 190.0, "eta": 0.121},
    "routed-experts": {
        "a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "E_start": 1.847, "E_max": 314.478,
    },
    "routed-parameters": {"a": -0.08, "b": -0.1, "c": 0.008, "d": 1.1},
    "vocabulary": {
        "A1": 300.0, "alpha1": 0.4, "A2": 30.0, "alpha2": 0.35, "B": 900.0, "beta": 0.37, "E": 5.53,
    },
    "farseer": {
        "a3": -0.021, "gamma": 0.169, "b3": 0.091, "a2": 88.01, "beta": -0.1, "b2": -5.287,
        "a1": -0.124, "alpha": 0.123, "b1": 0.424,
    },
}  # fmt: skip
"""Near the papers' own; of the vocabulary law chosen so that each term matters on these ranges."""


def simulate(entry: LawEntry, truth: Mapping[str, float], n_runs: int, seed: int) -> RunTable:
    """Runs spread evenly over RANGES with errors of SIGMA."""
    rng = np.random.default_rng(seed)
    names = entry.variables or tuple(n for n in entry.needs if n != entry.target)
    columns = {}
    for name in dict.fromkeys(names):
        low, high = RANGES[name]
        columns[name] = np.exp(rng.uniform(math.log(low), math.log(high), n_runs))
    if "n_experts" in columns:
        columns["n_experts"] = np.round(columns["n_experts"])
    if "n_params_total" in columns:
        columns["n_params_total"] = columns["n_params"] * np.exp(rng.uniform(0, 4, n_runs))
    runs = make_table(**columns | ({} if "loss" in columns else {"loss": np.ones(n_runs)}))
    law = build_law(entry, runs, None)
    theta = law.from_symbols(truth)[None]
    value = law.values(theta, log_variables(law, runs.quantities))[0][0]
    error = SIGMA * rng.standard_normal(n_runs)
    value = value + error if entry.space == "linear" else value * np.exp(error)
    return make_table(**{**columns, entry.target: value})


def speed(names: list[str]) -> None:
    print(f"| law | parameters | fit of {N_RUNS} runs, CPU s | {N_REFITS:,} refits, CPU s |")
    print("|---|---|---|---|")
    for name in names:
        entry, runs = LAWS[name], simulate(LAWS[name], TRUTHS[name], N_RUNS, 0)
        fit_law(entry, runs)  # imports
        start = time.process_time()
        fit = fit_law(entry, runs)
        fitted = time.process_time()
        bootstrap(fit.problem, fit.theta, clusters(fit.runs), N_REFITS, 0)
        end = time.process_time()
        print(
            f"| {name} | {fit.theta.size} | {fitted - start:.2f} | {end - fitted:.1f} |", flush=True
        )


def coverage(names: list[str], studies: int) -> None:
    heads = " | ".join(
        f"{method} {level}%" for method in ("profile", "bootstrap") for level in LEVELS
    )
    print(f"| law | {heads} |\n|---|---|---|---|---|")
    for name in names:
        rates = _rates(name, studies)
        flat = rates.reshape(len(rates), -1).T
        cells = [f"{r.mean():.3f} ({r.min():.2f} to {r.max():.2f})" for r in flat]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _rates(name: str, studies: int) -> np.ndarray:
    """(symbols, methods, levels)"""
    entry, truth, hits = LAWS[name], TRUTHS[name], []
    for study in range(studies):
        runs = simulate(entry, truth, STUDY_RUNS, 100 + study)
        found = estimate_uncertainty(fit_law(entry, runs, delta=math.inf), STUDY_REFITS, study)
        hits.append(
            [
                [_holds(table[symbol], value) for table in (found.profile, found.bootstrap)]
                for symbol, value in truth.items()
            ]
        )
    return np.mean(hits, axis=0)


def _holds(edges: np.ndarray, value: float) -> list[bool]:
    """By level; an open edge is far."""
    low = np.nan_to_num(edges[:, 0], nan=-np.inf)
    high = np.nan_to_num(edges[:, 1], nan=np.inf)
    return list((low <= value) & (value <= high))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coverage", type=int, metavar="STUDIES")
    parser.add_argument("--laws", default=",".join(TRUTHS), metavar="NAME[,NAME]")
    arguments = parser.parse_args()
    names = arguments.laws.split(",")
    if arguments.coverage:
        coverage(names, arguments.coverage)
    else:
        speed(names)


if __name__ == "__main__":
    main()
