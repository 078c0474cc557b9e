"""Simulated studies for the laws of scores, curves, grids and mixtures, with known truths."""

import numpy as np

from gpt_jax.scaling.bowls import Grid
from gpt_jax.scaling.chain import RunCurve
from gpt_jax.scaling.curve import Curve, curve_values, from_parameters, make_blocks
from gpt_jax.scaling.schedules import make_schedule

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


CURVE_LAW = {"L0": 3.0, "A": 0.55, "alpha": 0.5, "B": 400.0, "C": 2.0, "beta": 0.6, "gamma": 0.6}


def curves(seed: int, sigma: float = 0.001, kinds: tuple[str, ...] = ("constant", "cosine", "wsd")):
    """Loss curves of 12,000 steps under the law, with noise that neighbours share."""
    rng = np.random.default_rng(seed)
    theta = from_parameters(CURVE_LAW)
    found = []
    for kind in kinds:
        rates = make_schedule(kind, 12_000, 1000, 3e-4, 3e-5)
        steps = np.arange(1100, 12_000, 100)
        bare = Curve(kind, rates, steps, np.full(steps.size, np.nan))
        loss = curve_values(theta[None], make_blocks(bare))[0][0]
        noise = np.zeros(steps.size)
        for k in range(steps.size):
            noise[k] = 0.7 * noise[k - 1] + rng.normal() if k else rng.normal() / 0.51**0.5
        found.append(Curve(kind, rates, steps, loss * np.exp(sigma * 0.51**0.5 * noise)))
    return found


RATE = (2.0, -0.7, 0.3)
"""Scale and exponents in N and D of the best learning rate."""
BATCH = (0.6, 0.57)


def grid(seed: int, sigma: float = 0.002, cell_sigma: float = 0.1) -> Grid:
    """Twelve cells of 8 x 8 rates and batches; each cell's best lies off the law at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in (1e8, 3e8, 1e9):
        for d in (2e9, 8e9, 3e10, 1e11):
            best_rate = np.log(RATE[0] * n ** RATE[1] * d ** RATE[2]) + cell_sigma * rng.normal()
            best_batch = np.log(BATCH[0] * d ** BATCH[1]) + cell_sigma * rng.normal()
            floor = 1.8 + 400 / n**0.35 + 400 / d**0.3
            for x in np.linspace(-1.6, 2.0, 8):
                for y in np.linspace(-2.0, 1.6, 8):
                    rate, batch = best_rate + x, best_batch + y
                    bowl = 0.01 * (x * x - 0.8 * x * y + y * y)
                    loss = floor * np.exp(bowl + sigma * rng.normal())
                    rows.append((np.exp(rate), np.exp(batch), n, d, loss))
    rate, batch, n, d, loss = np.array(rows).T
    return Grid({"learning_rate": rate, "batch_tokens": batch}, n, d, loss)


MIXTURE = np.array([2.5, -1.2, 0.3, 0.1, -0.2])
"""c and t of a domain's loss."""


def mixtures(seed: int, count: int = 24, sigma: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(MIXTURE.size - 1), count)
    loss = MIXTURE[0] + np.exp(shares @ MIXTURE[1:])
    return shares, loss + sigma * rng.normal(size=count)
