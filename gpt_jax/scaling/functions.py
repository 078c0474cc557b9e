"""Functions of one loss that give a score, fitted by least squares; and their starts.

Dims: F fits, R points, P parameters. Must not import jax.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gpt_jax.scaling.laws import Array, LogVariables
from gpt_jax.scaling.minimise import minimise

Link = Literal["sigmoid", "exponential"]
STARTS = 12
"""Values of each nonlinear parameter that starts are taken from."""


@dataclass(frozen=True)
class Sigmoid:
    """score = a / (1 + exp(-k (L - L0))) + b: falls from b to b + a (2412.04403, eq. 4).

    theta: (a, L0, k, b), within the bounds of that paper's fits.
    """

    symbols: tuple[str, ...] = ("a", "L0", "k", "b")
    formula: str = "score = a / (1 + exp(-k (L - L0))) + b"

    @property
    def bounds(self) -> Array:
        return np.array([[-1.0, 0.0], [0.0, 1e3], [0.0, 1e4], [0.0, 1.0]])

    def values(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        a, middle, k, b = theta.T[:, :, None]
        distance = x["loss"] - middle
        share = _logistic(k * distance)
        slope = a * share * (1 - share)
        ones = np.ones_like(share)
        return a * share + b, np.stack([share, -k * slope, distance * slope, ones], 1)

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        return _logarithms(*self.values(theta, x))

    def starts(self, loss: Array, score: Array) -> Array:
        """(F, 4): middles and steepnesses on a grid, a and b by linear least squares."""
        middles = np.linspace(loss.min(), loss.max(), STARTS)
        steepness = np.geomspace(1, 50, STARTS) / np.ptp(loss)
        found = []
        for middle in middles:
            for k in steepness:
                a, b = _line(_logistic(k * (loss - middle)), score)
                found.append([a, middle, k, b])
        return np.array(found)


@dataclass(frozen=True)
class ErrorExponential:
    """score = 1 - (eps - k exp(-gamma L)): error from loss (Gadre et al. 2403.08540, eq. 5).

    theta: (eps, log k, gamma).
    """

    symbols: tuple[str, ...] = ("eps", "log_k", "gamma")
    formula: str = "1 - score = eps - k exp(-gamma L)"

    @property
    def bounds(self) -> Array:
        return np.array([[0.0, 1.0], [-60.0, 60.0], [1e-4, 1e3]])

    def values(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        eps, log_k, gamma = theta.T[:, :, None]
        gain = np.exp(log_k - gamma * x["loss"])
        return 1 - eps + gain, np.stack([-np.ones_like(gain), gain, -x["loss"] * gain], 1)

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        return _logarithms(*self.values(theta, x))

    def starts(self, loss: Array, score: Array) -> Array:
        """(F, 3): decay rates on a grid, eps and k by linear least squares."""
        found = []
        for gamma in np.geomspace(0.1, 30, 4 * STARTS) / np.ptp(loss):
            k, level = _line(np.exp(-gamma * (loss - loss.min())), score)
            found.append([1 - level, np.log(max(k, 1e-9)) + gamma * loss.min(), gamma])
        return np.array(found)


LINKS: dict[str, Sigmoid | ErrorExponential] = {
    "sigmoid": Sigmoid(),
    "exponential": ErrorExponential(),
}


def fit_link(link: Sigmoid | ErrorExponential, loss: Array, score: Array, weights: Array) -> Array:
    """theta (P) of the least weighted sum of squares of scores, from many starts."""
    x = {"loss": loss}
    start = link.starts(loss, score)
    rough = minimise(link, x, score, start, np.inf, space="linear", weights=weights, iterations=40)
    best = rough.theta[np.argsort(rough.objective)[:3]]
    fine = minimise(link, x, score, best, np.inf, space="linear", weights=weights)
    return fine.theta[fine.objective.argmin()]


def _line(column: Array, target: Array) -> tuple[float, float]:
    """Slope and intercept of target against a column."""
    centred = column - column.mean()
    slope = float(centred @ target / max(float(centred @ centred), 1e-300))
    return slope, float(target.mean() - slope * column.mean())


def _logistic(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * z))


def _logarithms(value: Array, gradient: Array) -> tuple[Array, Array]:
    """The same in logarithms; nan where a value is not above 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(value), gradient / value[:, None]
