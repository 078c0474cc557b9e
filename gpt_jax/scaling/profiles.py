"""Loss profiles at one compute: a low-order polynomial through the points near the lowest loss.

Far from the minimum a profile is no parabola: losses of undertrained sizes saturate towards the
uniform loss, and the two sides rise at different rates. Only points within a factor of the minimum
take part. Dims: V versions of the losses, S points of one compute.

Must not import jax.
"""

from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import Array

FEWEST_IN_WINDOW = 5
"""Different values a window holds: it widens to the nearest ones where its factor gives fewer."""
ROUNDS = 5
"""Moves of the window to the minimum of its polynomial, from the lowest loss."""
MARGIN = 2
"""Values in the window at or below an interior minimum, and as many at or above it."""


@dataclass(frozen=True)
class LocalFit:
    """Polynomials of degree 2 or 3 through the points in a window, for V versions of the losses."""

    center: Array
    """(V): z = log x - center"""
    coefficients: Array
    """(V, 4): loss = c0 + c1 z + c2 z^2 + c3 z^3"""
    used: Array
    """(V, S) bool: points in the window"""

    @property
    def log_minimum(self) -> Array:
        """(V): log x of the minimum; nan where the polynomial has none."""
        return stationary(self.coefficients) + self.center

    @property
    def minimum_loss(self) -> Array:
        return polynomial(self.coefficients, stationary(self.coefficients)[:, None])[:, 0]

    def predicted(self, log_x: Array) -> Array:
        """(V, S): the polynomials at log_x (S)."""
        return polynomial(self.coefficients, log_x - self.center[:, None])


def fit_near_minimum(log_x: Array, loss: Array, factor: float) -> LocalFit:
    """Parabolas through the points within a factor of their own minimum.

    log_x: (S); loss: (V, S). The window starts at the lowest loss and follows the parabola's
    minimum, within the points' range.
    """
    fit = fit_window(log_x, loss, log_x[loss.argmin(1)], factor, 2)
    center, coefficients, used = fit.center.copy(), fit.coefficients.copy(), fit.used.copy()
    active = np.arange(len(loss))
    for _ in range(ROUNDS):
        place = stationary(coefficients[active]) + center[active]
        # Without a minimum the window stays where it is.
        moved = np.where(np.isfinite(place), place, center[active])
        fit = fit_window(log_x, loss[active], np.clip(moved, log_x.min(), log_x.max()), factor, 2)
        changed = (fit.used != used[active]).any(1)
        center[active], coefficients[active] = fit.center, fit.coefficients
        used[active] = fit.used
        active = active[changed]
        if not active.size:
            break
    return LocalFit(center, coefficients, used)


def fit_window(log_x: Array, loss: Array, center: Array, factor: float, degree: int) -> LocalFit:
    """Least squares polynomials through the points within a factor of each center (V)."""
    values = np.unique(log_x)
    reach = np.sort(np.abs(values - center[:, None]), axis=1)
    radius = np.maximum(np.log(factor), reach[:, min(FEWEST_IN_WINDOW, values.size) - 1])
    z = log_x - center[:, None]
    used = np.abs(z) <= radius[:, None] * (1 + 1e-9)
    powers = z[:, None] ** np.arange(degree + 1)[:, None] * used[:, None]
    scale = np.abs(powers).max(2, keepdims=True)
    powers = powers / np.where(scale > 0, scale, 1)
    normal = powers @ powers.transpose(0, 2, 1)
    normal += 1e-13 * np.eye(degree + 1)  # nearly coincident values leave it singular
    solved = np.linalg.solve(normal, powers @ loss[..., None])[..., 0] / scale[..., 0]
    coefficients = np.zeros((len(loss), 4))
    coefficients[:, : degree + 1] = solved
    return LocalFit(center, coefficients, used)


def polynomial(coefficients: Array, z: Array) -> Array:
    """(V, 4) at z (V, K) -> (V, K)."""
    c0, c1, c2, c3 = coefficients.T[..., None]
    return c0 + z * (c1 + z * (c2 + z * c3))


def stationary(coefficients: Array) -> Array:
    """(V): z of the minimum of each cubic, nan where it has none."""
    _, c1, c2, c3 = coefficients.T
    inner = c2**2 - 3 * c1 * c3
    # Of a parabola that opens downwards the divisor is zero: its stationary point is a maximum.
    divisor = np.where(inner > 0, c2 + np.sqrt(np.maximum(inner, 0)), 0.0)
    valid = (inner > 0) & (divisor != 0) & ~((c3 == 0) & (c2 <= 0))
    return np.where(valid, -c1 / np.where(valid, divisor, 1.0), np.nan)


def states(log_x: Array, fit: LocalFit) -> Array:
    """(V) of "inside", "edge", "outside", "none": where minima lie among their window's values.

    Inside: at least MARGIN values at or below the minimum, and as many at or above it.
    """
    place = fit.log_minimum[:, None]
    values, first = np.unique(log_x, return_index=True)
    used = fit.used[:, first]
    below, above = (used & (values <= place)).sum(1), (used & (values >= place)).sum(1)
    fewest = np.minimum(below, above)
    found = np.where(fewest >= MARGIN, "inside", np.where(fewest > 0, "edge", "outside"))
    return np.where(np.isfinite(place[:, 0]), found, "none")
