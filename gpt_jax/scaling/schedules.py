"""Learning-rate schedules as arrays, and the best one for a budget under a law of curves.

Must not import jax.
"""

from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.curve import BLOCK, TINY_RATE, Blocks, Curve, curve_values, make_blocks
from gpt_jax.scaling.laws import Array

SEGMENTS = 40
"""Pieces of a schedule that is optimised, each of constant slope."""
LOWEST = 1e-4
"""Least rate of an optimised schedule, as a share of its peak."""
KINDS = ("constant", "cosine", "linear", "wsd")


@dataclass(frozen=True)
class BestSchedule:
    """The monotone schedule of the lowest final loss under a law, and plain ones beside it."""

    steps: Array
    """(SEGMENTS + 1) ends of the pieces"""
    rates: Array
    loss: float
    others: dict[str, float]
    """{kind: final loss} at the same budget and peak"""


def make_schedule(kind: str, steps: int, warmup: int, peak: float, end: float) -> Array:
    """(steps) rates: linear warm-up from 0, then constant, cosine, linear or wsd.

    wsd holds the peak for 5/6 of the steps and decays exponentially.
    """
    share = np.clip((np.arange(steps) - warmup) / max(1, steps - warmup), 0, 1)
    after = {
        "constant": np.full(steps, peak),
        "cosine": end + (peak - end) / 2 * (1 + np.cos(np.pi * share)),
        "linear": peak + (end - peak) * share,
        "wsd": peak
        * (max(end, 1e-3 * peak) / peak)
        ** np.clip((np.arange(steps) - steps * 5 // 6) / (steps / 6), 0, 1),
    }[kind]
    return _warmed(after, warmup, peak)


def fill_rates(steps: Array, rates: Array, warmup: int) -> Array:
    """The rate of each step from rates at some steps: linear between, and warmed up from 0.

    A change between two rows with constant rates on either side is a jump, at the second row.
    """
    at = np.arange(int(steps.max()) + 1)
    filled = np.interp(at, steps, rates)
    flat = np.append(np.append(True, np.diff(rates) == 0), True)
    for k in np.flatnonzero(~flat[1:-1] & flat[:-2] & flat[2:]):
        between = (at > steps[k]) & (at < steps[k + 1])
        filled[between] = rates[k]
    return _warmed(filled, warmup, float(rates[0]))


def best_schedule(theta: Array, steps: int, warmup: int, peak: float) -> BestSchedule:
    """Minimise the final loss over schedules that never rise; theta: of the law (P)."""
    from scipy.optimize import minimize

    # More pieces near the end, where the rate falls.
    edges = np.unique(
        np.round(steps - 1 - (steps - 1 - warmup) * (1 - np.linspace(0, 1, SEGMENTS + 1)) ** 1.5)
    )
    blocks = np.append(np.arange(0, steps - 1, BLOCK), steps - 1)

    def levels(falls: Array) -> Array:
        return peak * np.maximum(np.exp(-np.cumsum(np.append(0.0, falls))), LOWEST)

    def final(falls: Array) -> float:
        return _smooth_loss(theta, fill_rates(edges, levels(falls), warmup), blocks)

    count = edges.size - 1
    wsd = np.where(edges[1:] > 0.8 * steps, 0.15, 1e-3)
    best = min(
        (
            minimize(
                final, start, method="L-BFGS-B", bounds=[(0, 5)] * count,
                options={"maxiter": 100, "maxfun": 6000, "eps": 1e-4, "ftol": 1e-12},
            )
            for start in (np.full(count, 0.06), wsd)
        ),
        key=lambda found: found.fun,
    )  # fmt: skip
    others = {
        kind: final_loss(theta, make_schedule(kind, steps, warmup, peak, 0.1 * peak))
        for kind in KINDS
    }
    found = levels(best.x)
    loss = final_loss(theta, fill_rates(edges, found, warmup))
    return BestSchedule(edges, found, loss, others)


def _smooth_loss(theta: Array, rates: Array, edges: Array) -> float:
    """The last step's loss with blocks whose centres do not move with the rates."""
    rates = np.maximum(rates, TINY_RATE)
    sums, middle = np.cumsum(rates), (edges[:-1] + edges[1:] + 1) // 2
    blocks = Blocks(
        total=sums[-1:],
        gap=np.diff(rates[edges]),
        log_rate=np.log(rates[middle]),
        distance=(sums[-1] - sums[middle - 1])[None],
    )
    return float(curve_values(theta[None], blocks)[0][0, 0])


def final_loss(theta: Array, rates: Array) -> float:
    """The law's loss at the last step of a schedule."""
    curve = Curve("", rates, np.array([rates.size - 1]), np.array([np.nan]))
    return float(curve_values(theta[None], make_blocks(curve))[0][0, 0])


def _warmed(rates: Array, warmup: int, peak: float) -> Array:
    rates = rates.copy()
    if warmup:
        rates[:warmup] = np.linspace(0, peak, warmup + 1)[:-1][: rates.size]
    return rates
