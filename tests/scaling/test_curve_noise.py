"""Noise along curves: the restricted likelihood by its definition, draws, and long curves."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.stats import multivariate_normal

from gpt_jax.scaling import noise


def correlated(rng, steps, correlation, share):
    """Noise of unit variance: white, and exponentially correlated over median distances."""
    distance = np.abs(steps[:, None] - steps[None]) / np.median(np.diff(steps))
    covariance = (1 - share) * np.eye(steps.size) + share * correlation**distance
    return rng.multivariate_normal(np.zeros(steps.size), covariance), covariance


def test_restricted_likelihood_is_that_of_contrasts_which_no_law_can_explain():
    """Patterson and Thompson's definition: the density of K'y, K orthogonal to the derivatives."""
    rng = np.random.default_rng(0)
    steps = [np.sort(rng.choice(400, 14, replace=False)) * 10.0, np.arange(100.0, 900, 50)]
    slopes = rng.standard_normal((30, 3))
    residuals = rng.standard_normal(30)
    found = noise.judge(residuals, slopes, steps)
    distance = np.median(np.concatenate([np.diff(s) for s in steps]))
    contrasts = null_space(slopes.T)
    seen = contrasts.T @ residuals
    logs = []
    for shape in found.shapes:
        covariance = np.zeros((30, 30))
        for rows, s in zip((slice(14), slice(14, 30)), steps, strict=True):
            away = np.abs(s[:, None] - s[None]) / distance
            covariance[rows, rows] = shape.share * shape.correlation**away
        covariance += (1 - shape.share) * np.eye(30)
        inner = contrasts.T @ covariance @ contrasts
        assert shape.variance == pytest.approx(seen @ np.linalg.solve(inner, seen) / 27)
        # The scale's prior is 1 / variance: the integral over it leaves this of the density.
        at_best = multivariate_normal(cov=shape.variance * inner).logpdf(seen)
        logs.append(at_best)
    weights = np.array([shape.weight for shape in found.shapes])
    assert np.log(weights / weights[0]) == pytest.approx(np.array(logs) - logs[0])


def test_noise_that_a_law_has_taken_up_is_missed_by_residuals_but_not_by_the_estimate():
    """A cubic through 50 evaluations of slow noise leaves residuals a fraction of its size. How
    much it took is not known well: the estimate may be large, not small."""
    steps, rng = np.arange(50.0) * 100, np.random.default_rng(1)
    x = np.linspace(-1, 1, 50)
    design = np.stack([x**k for k in range(4)], 1)
    naive, ours = [], []
    for _ in range(100):
        values, covariance = correlated(rng, steps, 0.8, 1.0)
        left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        naive.append(left.sum() ** 2 / 50)
        ours.append(noise.judge(left, design, [steps]).together)
    truth = covariance.sum() / 50
    assert np.mean(naive) < 0.1 * truth
    assert 0.7 * truth < np.median(ours) < 7 * truth


def test_draws_have_the_covariance_of_their_shape_and_students_tails():
    steps, rng = np.arange(12.0), np.random.default_rng(2)
    values, _ = correlated(rng, steps, 0.675, 0.5)
    found = noise.judge(values, np.ones((12, 1)), [steps])
    shape = noise.Shape(0.675, 0.5, 1.0, 2.0)
    drawn = replace(found, shapes=(shape,)).draw(200_000, rng)
    _, covariance = correlated(rng, steps, 0.675, 0.5)
    # Student's t of 11 degrees of freedom: variance 11 / 9.
    assert np.cov(drawn.T) == pytest.approx(2 * 11 / 9 * covariance, abs=0.06)


def test_many_evaluations_are_judged_by_means_of_neighbours(monkeypatch):
    """Five times as many evaluations of one curve say about the same of their sum."""
    monkeypatch.setattr(noise, "MOST", 60)
    rng = np.random.default_rng(3)
    steps = np.arange(300.0)
    ratios = []
    for _ in range(12):
        values, covariance = correlated(rng, steps, 0.9, 1.0)
        found = noise.judge(values, np.ones((300, 1)), [steps])
        ratios.append(found.together / (covariance.sum() / 300))
    assert found.places[0].size == 60
    assert found.draw(3, rng).shape == (3, 300)
    assert 0.5 < np.median(ratios) < 3


def test_a_law_that_takes_every_evaluation_leaves_no_noise_to_judge():
    with pytest.raises(ValueError, match="3 evaluations"):
        noise.judge(np.ones(3), np.eye(3), [np.arange(3.0)])
