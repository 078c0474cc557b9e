"""Simulated tables of runs under known laws."""

from collections.abc import Callable

import numpy as np
import pytest
from planted_laws import chinchilla_loss, optimal_size

from gpt_jax.scaling.table import RunTable, make_table


@pytest.fixture
def scattered() -> Callable[..., RunTable]:
    """(n_runs, sigma, seed) -> runs at random N and D under TRUTH, log-normal errors."""

    def make(n_runs: int = 60, sigma: float = 0.0, seed: int = 0) -> RunTable:
        rng = np.random.default_rng(seed)
        n = np.exp(rng.uniform(np.log(5e7), np.log(1.5e10), n_runs))
        d = np.exp(rng.uniform(np.log(1e9), np.log(3e11), n_runs))
        loss = chinchilla_loss(n, d) * np.exp(sigma * rng.standard_normal(n_runs))
        return make_table(n_params=n, n_tokens=d, loss=loss)

    return make


@pytest.fixture
def isoflop_grid() -> Callable[..., RunTable]:
    """(sigma, seed, low, high) -> 5 budgets of 8 sizes from low to high times the optimum."""

    def make(
        sigma: float = 0.0, seed: int = 0, low: float = 0.2, high: float = 5.0, budgets: int = 5
    ) -> RunTable:
        rng = np.random.default_rng(seed)
        compute = np.repeat(np.geomspace(1e18, 1e21, budgets), 8)
        best = np.array([optimal_size(c) for c in compute])
        n = best * np.tile(np.geomspace(low, high, 8), budgets)
        d = compute / 6 / n
        loss = chinchilla_loss(n, d) * np.exp(sigma * rng.standard_normal(n.size))
        return make_table(n_params=n, n_tokens=d, flops=compute, loss=loss)

    return make
