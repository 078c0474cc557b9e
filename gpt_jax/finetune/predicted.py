"""A model's predictions on a task's examples. Must not import jax."""

import math
from typing import NamedTuple

import numpy as np


class Predicted(NamedTuple):
    """A model's outputs and losses on examples, in the examples' order."""

    indices: np.ndarray
    """[N] of the examples."""
    outputs: np.ndarray
    """[N, ...]: what the task's objective gives (`Objective.outputs`)."""
    losses: np.ndarray
    """[batches] sums."""
    weights: np.ndarray

    @property
    def loss(self) -> float:
        """The mean; nan where nothing counts."""
        total = self.weights.sum()
        return float(self.losses.sum() / total) if total else math.nan
