"""Farseer's law, in coordinates in which its nine parameters can be told apart.

Must not import jax.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import Array, LogVariables, PositiveLaw, PowerSum, log_sum
from gpt_jax.scaling.minimise import minimise

POWER_RANGE = (-2.0, 2.0)
VALUE_RANGE = (-200.0, 200.0)
SLOPE_RANGE = (-20.0, 20.0)
POWERS = (-0.3, 0.0, 0.3)
"""Starting values of the power p of N, for each of f1, f2 and f3."""
SLOPES = (-0.1, 0.0, 0.1)
"""Starting slopes of f1 against log N; that of f2 compensates. Approach 3 has both constant."""
N_BASES = 2
SMALL = 1e-3
"""Arguments whose size is below this use the series of the exponential."""
NO_POWER = 1e-9
"""Least size of a power of N when a and b are computed for printing: they have no value at 0."""


@dataclass(frozen=True)
class Farseer(PositiveLaw):
    """L = e^f3(N) + e^f2(N) D^(-e^f1(N)), f(N) = a N^p + b (Li et al. 2025).

    theta: for f3, f2 and f1 (value and slope against log N at the centre, p): as p goes to 0 each
    becomes a straight line in log N, while a and b grow without end.
    """

    center: float
    """Mean of log N over the runs."""
    formula: str = "L = e^(a3 N^gamma + b3) + e^(a2 N^beta + b2) D^(-e^(a1 N^alpha + b1))"
    variables: tuple[str, ...] = ("n_params", "n_tokens")
    symbols: tuple[str, ...] = ("a3", "b3", "gamma", "a2", "b2", "beta", "a1", "b1", "alpha")

    @property
    def bounds(self) -> Array:
        return np.array([VALUE_RANGE, SLOPE_RANGE, POWER_RANGE] * 3)

    @property
    def signs(self) -> Array:
        return np.zeros(9)

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        u, log_d = x["n_params"] - self.center, x["n_tokens"]
        parts = [_part(theta[:, 3 * k : 3 * k + 3, None], u) for k in range(3)]
        power = np.exp(parts[2][0])
        total, (share, other) = log_sum([parts[0][0], parts[1][0] - power * log_d])
        chain = (share, other, -other * power * log_d)
        gradient = [
            c * slope for c, (_, slopes) in zip(chain, parts, strict=True) for slope in slopes
        ]
        return total, np.stack(gradient, 1)

    def log_symbols(self, theta: Array) -> Array:
        found = theta.copy()
        for k in range(0, 9, 3):
            value, slope, power = theta[:, k], theta[:, k + 1], theta[:, k + 2]
            safe = np.where(np.abs(power) < NO_POWER, NO_POWER, power)
            found[:, k] = slope / safe * np.exp(-safe * self.center)
            found[:, k + 1] = value - slope / safe
        return found

    def from_log_symbols(self, logs: Array) -> Array:
        theta = logs.copy()
        for k in range(0, 9, 3):
            a, b, power = logs[:, k], logs[:, k + 1], logs[:, k + 2]
            term = a * np.exp(power * self.center)
            theta[:, k], theta[:, k + 1] = term + b, term * power
        return theta

    def starts(self, x: LogVariables, loss: Array) -> Array:
        """Around the best fits of approach 3, which is f2 and f1 constant."""
        log_n, log_d = x["n_params"], x["n_tokens"]
        centers = (float(log_n.mean()), float(log_d.mean()))
        terms = (("A", "alpha"), ("B", "beta"))
        law = PowerSum(self.variables, terms, "", "coefficient", centers, "E")
        measured = np.log(np.maximum(loss, 1e-300))
        found = minimise(law, x, measured, law.starts(x, loss), np.inf, iterations=60)
        bases = law.log_symbols(found.theta[np.argsort(found.objective)[:N_BASES]])
        rows = []
        for a, alpha, b, beta, e in bases:
            top = a - np.exp(alpha) * self.center
            value = np.logaddexp(e, top)
            slope = -np.exp(alpha) * np.exp(top - value)
            for powers in itertools.product(POWERS, POWERS, POWERS):
                for tilt in SLOPES:
                    # What the exponent of D gains with N, its coefficient has to make up for.
                    made_up = tilt * np.exp(beta) * centers[1]
                    rows.append(
                        [value, slope, powers[0], b, made_up, powers[1], beta, tilt, powers[2]]
                    )
        return np.array(rows)


def _part(theta: Array, u: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """value + slope (e^(p u) - 1) / p for theta (F, 3, 1) and u (R), and its derivatives."""
    value, slope, power = theta[:, 0], theta[:, 1], theta[:, 2]
    y = power * u
    near = np.abs(y) < SMALL
    safe = np.where(near, 1.0, y)
    grown = np.expm1(safe)
    ratio = np.where(near, 1 + y / 2 + y**2 / 6 + y**3 / 24, grown / safe)
    bend = np.where(
        near, 0.5 + y / 3 + y**2 / 8 + y**3 / 30, (safe * (grown + 1) - grown) / safe**2
    )
    return value + slope * u * ratio, (np.ones_like(y), u * ratio, slope * u**2 * bend)
