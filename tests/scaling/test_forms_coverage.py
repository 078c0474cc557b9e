"""Intervals of the newer laws hold the truth at their nominal rate, within 5 points.

Each takes minutes. `pytest -n 0 -m slow -s tests/scaling/test_forms_coverage.py` prints the rates.
"""

import numpy as np
import pytest
from simulated_forms import ladder, target_run, task_loss, task_score

from gpt_jax.scaling.chain import Settings, fit_chain

pytestmark = pytest.mark.slow
STUDIES = 200


def report(what: str, held: list[dict[int, bool]]) -> None:
    """Print the rates, and hold each within 5 points of its level."""
    rates = {level: 100 * float(np.mean([h[level] for h in held])) for level in (80, 95)}
    print(
        f"{what}: {rates[80]:.1f}% in 80% intervals, {rates[95]:.1f}% in 95% ({len(held)} studies)"
    )
    for level, rate in rates.items():
        assert abs(rate - level) <= 5, (what, rates)


def holds(intervals: dict[int, tuple[float, float]], truth: float) -> dict[int, bool]:
    return {level: low <= truth <= high for level, (low, high) in intervals.items()}


@pytest.mark.parametrize("link", ["sigmoid", "exponential"])
def test_chains(link):
    losses, scores = [], []
    exponential = link == "exponential"
    truth = task_loss(7e9, 2e12)
    for seed in range(STUDIES):
        settings = Settings(link=link, n_refits=300, seed=seed)
        chain = fit_chain("task", ladder(seed, exponential), target_run(), settings)
        losses.append(holds(chain.loss.intervals, truth))
        scores.append(holds(chain.score.intervals, task_score(truth, exponential)))
    report(f"{link}: loss", losses)
    report(f"{link}: score", scores)
