"""Levenberg-Marquardt on Huber losses, for thousands of fits of one law at a time.

Objective: sum over runs of weight * huber(log predicted - log measured). With delta = infinity
that is half the weighted sum of squares. In linear space the logarithms are left out; with an
asymmetry K a run that is measured above the law weighs K times less. Dims: F fits, R runs, P free
parameters.

Must not import jax.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from gpt_jax.scaling.laws import Array, LogVariables

Space = Literal["log", "linear"]
"""Whether residuals are differences of logarithms, or of the losses themselves."""

TINY_DECREASE = 1e-14
"""Share of the objective: a step that lowers it by less counts as no progress."""
CALM_STEPS = 4
"""Number of such steps in a row that end a fit."""
LARGEST_DAMPING = 1e10


class Predictor(Protocol):
    """Function that is fitted: a `Law`, or any other with its gradient."""

    @property
    def bounds(self) -> Array:
        """(P, 2): lowest and highest value of each free parameter."""

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        """theta (F, P) -> logarithms of what is predicted (F, R) and their gradient (F, P, R)."""

    def values(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        """theta (F, P) -> what is predicted (F, R) and its gradient (F, P, R)."""


@dataclass(frozen=True)
class Pull:
    """A spring on a function of theta, for profiles: adds strength / 2 (value - target)^2.

    At its minimum the objective without the spring is the least among all theta of that value,
    whatever the strength: every end point is an exact point of the profile.
    """

    value: Callable[[Array, Array], tuple[Array, Array]]
    """(theta (F, P), index of the fit (F)) -> value (F) and gradient (F, P)."""
    target: Array
    strength: Array


@dataclass(frozen=True)
class Minima:
    """Where each fit ended."""

    theta: Array
    """(F, P)"""
    objective: Array
    """(F), without any spring."""


def huber(residual: Array, delta: float) -> Array:
    """residual^2 / 2 up to delta, linear beyond."""
    size = np.abs(residual)
    if np.isinf(delta):
        return 0.5 * size**2
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


@dataclass(frozen=True)
class Objective:
    """Objective to minimise: the sum over runs of weight * huber(predicted - measured)."""

    law: Predictor
    x: LogVariables
    delta: float
    space: Space = "log"
    asymmetry: float = 1.0

    def predict(self, theta: Array) -> tuple[Array, Array]:
        """theta (F, P) -> predicted (F, R) in the objective's space, and its gradient (F, P, R)."""
        if self.space == "log":
            return self.law.log_loss(theta, self.x)
        return self.law.values(theta, self.x)

    def loss(self, residual: Array) -> Array:
        """Loss of each residual (predicted minus measured), before the runs' weights."""
        return huber(residual, self.delta) * self.side(residual)

    def side(self, residual: Array) -> Array | float:
        """The factor of the side on which the measured loss lies."""
        return 1.0 if self.asymmetry == 1 else np.where(residual < 0, 1 / self.asymmetry, 1.0)

    def share(self, residual: Array) -> Array:
        """Weight of the squared residual in the quadratic that majorises the loss."""
        if np.isinf(self.delta):
            return np.ones_like(residual) * self.side(residual)
        return self.delta / np.maximum(np.abs(residual), self.delta) * self.side(residual)


def minimise(
    law: Predictor,
    x: LogVariables,
    log_loss: Array,
    theta: Array,
    delta: float,
    *,
    space: Space = "log",
    asymmetry: float = 1.0,
    weights: Array | None = None,
    pull: Pull | None = None,
    iterations: int = 300,
) -> Minima:
    """Walk each start theta (F, P) down to a local minimum of the objective.

    log_loss: measured, (R) or (F, R); in linear space the loss itself. weights: (R) or (F, R), 1
    if not given. asymmetry: see `Objective`. Steps solve the
    quadratic that majorises the Huber loss (iteratively reweighted least squares), damped until
    the objective falls; parameters stay within the law's bounds.
    """
    goal = Objective(law, x, delta, space, asymmetry)
    shape = len(theta), log_loss.shape[-1]
    measured = np.broadcast_to(log_loss, shape)
    weight = np.broadcast_to(np.ones(shape[1]) if weights is None else weights, shape)
    # A start or a step may lie where the law overflows: it is not taken.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        theta = _descend(goal, measured, weight, theta, pull, iterations)
        predicted, _ = goal.predict(theta)
        objective = (weight * goal.loss(predicted - measured)).sum(1)
    return Minima(theta, np.where(np.isnan(objective), np.inf, objective))


def _descend(
    goal: Objective,
    measured: Array,
    weight: Array,
    theta: Array,
    pull: Pull | None,
    iterations: int,
) -> Array:
    """(F, P): where each start ends."""
    fits = len(theta)
    low, high = goal.law.bounds.T
    theta = np.clip(theta, low, high)
    objective = np.full(fits, np.inf)
    damping, calm = np.full(fits, 1e-2), np.zeros(fits, int)
    gradient, curvature = np.empty(theta.shape), np.empty((*theta.shape, theta.shape[1]))

    active, trial = np.arange(fits), theta
    for _ in range(iterations + 1):
        value, slope, curve = _quadratic(
            goal, measured[active], weight[active], trial, pull, active
        )
        before = objective[active]
        better = value < before
        # The first evaluation is taken as it is; a start that overflows stays where it is.
        settled = value >= before * (1 - TINY_DECREASE)
        taken = active[better]
        theta[taken], objective[taken] = trial[better], value[better]
        gradient[taken], curvature[taken] = slope[better], curve[better]
        damping[active] = np.where(better, damping[active] / 5, damping[active] * 4)
        calm[active] = np.where(settled, calm[active] + 1, 0)
        done = (calm[active] >= CALM_STEPS) & better | (damping[active] > LARGEST_DAMPING)
        active = active[~done & np.isfinite(objective[active])]
        if not active.size:
            break
        step = _step(gradient[active], curvature[active], damping[active], theta[active], low, high)
        trial = np.clip(theta[active] + step, low, high)
    return theta


def _quadratic(
    goal: Objective,
    measured: Array,
    weight: Array,
    theta: Array,
    pull: Pull | None,
    fits: Array,
) -> tuple[Array, Array, Array]:
    """Objective (F), its gradient (F, P) and the majorising curvature (F, P, P)."""
    predicted, jacobian = goal.predict(theta)
    residual = predicted - measured
    value = (weight * goal.loss(residual)).sum(1)
    scaled = jacobian * (weight * goal.share(residual))[:, None]
    gradient = (scaled @ residual[..., None])[..., 0]
    curvature = scaled @ jacobian.transpose(0, 2, 1)
    if pull is not None:
        at, direction = pull.value(theta, fits)
        strength, distance = pull.strength[fits], at - pull.target[fits]
        value = value + 0.5 * strength * distance**2
        gradient = gradient + (strength * distance)[:, None] * direction
        curvature = curvature + strength[:, None, None] * direction[:, :, None] * direction[:, None]
    return value, gradient, curvature


def _step(
    gradient: Array, curvature: Array, damping: Array, theta: Array, low: Array, high: Array
) -> Array:
    """(F, P): the damped Newton step, with parameters pushed against a bound held there."""
    held = (theta <= low) & (gradient > 0) | (theta >= high) & (gradient < 0)
    free = ~held
    scale = np.einsum("fpp->fp", curvature)
    floor = 1e-12 * scale.max(1, keepdims=True) + 1e-300
    matrix = curvature * (free[:, :, None] & free[:, None])
    diagonal = np.where(free, np.maximum(scale, floor) * damping[:, None] + floor * 1e-3, 1.0)
    matrix = matrix + diagonal[:, :, None] * np.eye(theta.shape[1])
    return np.linalg.solve(matrix, np.where(free, -gradient, 0.0)[..., None])[..., 0]
