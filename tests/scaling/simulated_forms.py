"""Simulated studies for the laws of scores, curves, grids and mixtures, with known truths."""

import numpy as np

from gpt_jax.scaling.chain import RunCurve

SIZES = np.array([190e6, 370e6, 760e6, 1280e6])
RATIOS = np.array([20.0, 40, 100, 200])


def task_loss(n: float, d: float) -> float:
    return 0.45 + 40 / n**0.226 + 100 / d**0.236


def task_score(loss: float | np.ndarray, exponential: bool = False) -> float | np.ndarray:
    if exponential:
        return 1 - (0.8 - 1.4 * np.exp(-1.5 * loss))
    return 1 - 0.75 / (1 + np.exp(-4.8 * (loss - 0.9)))


def ladder(
    seed: int, exponential: bool = False, sigma: float = 0.004, offset: float = 0.003
) -> list[RunCurve]:
    """Sixteen runs of 40 evaluations: noise of runs in both steps, and of each evaluation."""
    rng = np.random.default_rng(seed)
    runs = []
    for n in SIZES:
        for ratio in RATIOS:
            d = n * ratio
            steps = d * np.linspace(0.05, 1, 40)
            loss = np.array([task_loss(n, s) for s in steps]) * np.exp(sigma * rng.normal())
            score = task_score(loss, exponential) + offset * rng.normal()
            loss = loss + 0.002 * rng.normal(size=40)
            score = score + 0.003 * rng.normal(size=40)
            runs.append(RunCurve(f"{n:g}-{ratio:g}", n, d, 6 * n * d, loss, score))
    return runs


def target_run(n: float = 7e9, d: float = 2e12) -> RunCurve:
    return RunCurve("target", n, d, 6 * n * d, np.empty(0), np.empty(0))
