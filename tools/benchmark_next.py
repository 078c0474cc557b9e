"""How well a target region is predicted from the runs that `gpt-jax next` chooses.

    python tools/benchmark_next.py ../shared/data/runs [--seeds 10] [--pool moe]

Three pools of published runs with a dear target region (arXiv:2604.22753). Each method starts from
the same few cheap runs and spends a share of what the whole pool costs; all predict with the same
mixture of laws (`gpt_jax.scaling.choose`), so that only the choice differs. R2 is clipped at -1,
as the paper does.
"""

import argparse
import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt_jax.scaling.choose import believe, plan

METHODS = ("next", "random", "cheapest", "D-optimal", "all")
STARTING_RUNS = 2
"""Times the number of variables and one."""
LOOKS = 6
"""Results are looked at after such a part of the budget, or when the number of runs has doubled."""
PROPORTIONS = tuple(f"proportion_domain_{k}" for k in range(1, 6))


@dataclass(frozen=True)
class Pool:
    """What a pool's columns mean, and the published result."""

    variables: tuple[str, ...]
    losses: tuple[str, ...]
    cost: tuple[str, ...]
    """Columns whose product a run costs; none = 1."""
    share: float
    published: float
    logarithms: bool = True


POOLS = {
    "lr_bsz": Pool(
        ("lr", "bsz", "data_size", "non_embedding_param_size"),
        ("lm_loss",), ("data_size", "non_embedding_param_size"), 0.1, 0.22,
    ),
    "moe": Pool(
        ("num_experts", "dense_parameter_count"),
        ("loss_validation",), ("num_experts", "dense_parameter_count"), 0.1, 0.83,
    ),
    "domain_mixture": Pool(
        PROPORTIONS, tuple(f"loss_domain_{k}" for k in range(1, 6)), (), 0.5, 0.95, False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One group of a pool as arrays; rows are places."""

    x: np.ndarray
    y: np.ndarray
    """(M, outputs)"""
    cost: np.ndarray
    train: np.ndarray
    target: np.ndarray


def read(folder: Path, name: str) -> list[Study]:
    """The pool's groups."""
    pool = POOLS[name]
    with gzip.open(folder / f"active_sl_{name}.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    found = []
    for group in sorted({row["group"] for row in rows}):
        mine = [row for row in rows if row["group"] == group]

        def numbers(columns: Sequence[str], mine: list[dict[str, str]] = mine) -> np.ndarray:
            return np.array([[float(row[c]) for c in columns] for row in mine])

        x = numbers(pool.variables)
        test = np.array([row["split"] == "test" for row in mine])
        cost = numbers(pool.cost).prod(1) if pool.cost else np.ones(len(mine))
        found.append(
            Study(
                np.log(x) if pool.logarithms else x,
                numbers(pool.losses),
                cost,
                np.flatnonzero(~test),
                np.flatnonzero(test),
            )
        )
    return found


def choose(study: Study, method: str, budget: float, seed: int) -> np.ndarray:
    """Places of the runs that a method makes within the budget."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(study.train)
    if method == "all":
        return order
    if method == "cheapest":
        order = order[np.argsort(study.cost[order], kind="stable")]
    if method in ("random", "cheapest"):
        return np.array(_afford(order, study.cost, budget))
    cheap = study.train[np.argsort(study.cost[study.train], kind="stable")]
    cheap = cheap[: max(len(cheap) // 4, 10)]
    n_start = STARTING_RUNS * (study.x.shape[1] + 1)
    runs = _afford(rng.permutation(cheap)[:n_start], study.cost, budget / 2)
    while True:
        spent = study.cost[runs].sum()
        left = np.setdiff1d(study.train, runs)
        left = left[study.cost[left] <= budget - spent]
        if not left.size:
            return np.array(runs)
        output = len(runs) % study.y.shape[1]  # each run is chosen for one of the losses in turn
        belief = believe(study.x, np.array(runs), study.y[runs, output])
        if method == "D-optimal":
            gain = np.log1p((belief.root[left] ** 2).sum(1) / belief.noise[left])
            order = left[np.argsort(-gain / study.cost[left] ** 0.5, kind="stable")]
            planned = _afford(order, study.cost, budget - spent)
        else:
            rest = budget - spent
            picks, _ = plan(belief, study.target, left, study.cost, rest, nothing=0.0)
            planned = [pick.place for pick in picks]
        if not planned:
            return np.array(runs)
        # All that is left is planned, and a part of it is made before the next look.
        most = np.cumsum(study.cost[planned]) <= budget / LOOKS if study.y.shape[1] == 1 else [True]
        runs += planned[: max(1, min(int(np.sum(most)), len(runs)))]


def _afford(order: np.ndarray, cost: np.ndarray, budget: float) -> list[int]:
    runs: list[int] = []
    for place in order:
        if cost[place] <= budget:
            runs.append(int(place))
            budget -= cost[place]
    return runs


def score(name: str, studies: Sequence[Study], method: str, seed: int) -> float:
    """R2 over the target region of all groups and losses."""
    predicted, measured = [], []
    for study in studies:
        budget = POOLS[name].share * study.cost[study.train].sum()
        runs = choose(study, method, budget, seed)
        for k in range(study.y.shape[1]):
            belief = believe(study.x, runs, study.y[runs, k])
            predicted.append(belief.mean[study.target])
            measured.append(study.y[study.target, k])
    y, p = np.concatenate(measured), np.concatenate(predicted)
    return float(max(-1.0, 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pool", choices=list(POOLS), action="append")
    arguments = parser.parse_args()
    print("| pool | share of the cost | method | R2, mean | sd over seeds | published |")
    print("|---|---|---|---|---|---|")
    for name in arguments.pool or POOLS:
        studies = read(arguments.folder, name)
        for method in METHODS:
            seeds = 1 if method in ("all",) else arguments.seeds
            found = [score(name, studies, method, seed) for seed in range(seeds)]
            share = "all" if method == "all" else f"{POOLS[name].share:.0%}"
            published = f"{POOLS[name].published:.2f}" if method == "next" else ""
            print(
                f"| {name} | {share} | {method} | {np.mean(found):.2f} | {np.std(found):.2f} | "
                f"{published} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
