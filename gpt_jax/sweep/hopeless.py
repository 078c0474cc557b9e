"""The final loss of a run that has begun, predicted from its curve and from finished runs.

The multi-power law (`gpt_jax.scaling.curve`) is fitted to the beginning, with rates in units of
the run's peak; what that cannot say is taken from the finished run of the nearest peak. The same is
done to the beginnings of the finished runs, whose ends are known: the errors of these predictions
give the bias (the loss of a validation is not that of training) and the interval.

Must not import jax.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gpt_jax.scaling.curve import HELD, SYMBOLS, Curve, fit_curves
from gpt_jax.scaling.laws import Array

LEVEL = 95
"""Percent, of the interval."""
FEWEST = 3
"""Finished runs from which a prediction has an interval."""
MOST = 8
"""Finished runs, the nearest, that are used: each takes a fit."""
REFITS = 200
STRETCHES = 100
"""Points of a curve at most."""
PEAK = 1e-3
"""Peak to which learning rates are scaled: what a decay brings is alike at different peaks, and B,
which multiplies a difference of rates, is not."""
FALLEN = 0.2
"""Share of its peak to which a rate has fallen when the run itself says what its decay brings;
before that only the level of its loss, A, is its own. Chosen on one sweep of learning rates."""


@dataclass(frozen=True)
class Prediction:
    """A predicted final loss with its interval, LEVEL percent."""

    loss: float
    low: float
    high: float
    n_finished: int
    """Finished runs that it rests on"""


@dataclass
class FinishedRun:
    """A run that was trained to its end."""

    name: str
    curve: Curve
    """Training losses; rates of all of its steps"""
    final_loss: float
    """Validation loss at its end"""
    peak: float = 0.0
    """Peak learning rate, before the curve was scaled"""
    _law: Array | None = None
    _errors: dict[tuple[str, float], float] = field(default_factory=dict)

    @property
    def law(self) -> Array:
        """theta (P) of its own curve."""
        if self._law is None:
            self._law = fit_curves([self.curve], n_refits=0).theta
        return self._law

    def error(self, share: float, like: "FinishedRun") -> float:
        """Log of the final loss over what the first `share` of steps predicts by another law."""
        key = like.name, share
        if key not in self._errors:
            begun = beginning(self.curve, share)
            predicted = float(predict_end(begun, like.law, 0)[0])
            self._errors[key] = float(np.log(self.final_loss / predicted))
        return self._errors[key]


def beginning(curve: Curve, share: float) -> Curve:
    """The first `share` of a curve's steps; the rates stay whole."""
    seen = curve.steps <= share * (curve.rates.size - 1)
    return Curve(curve.name, curve.rates, curve.steps[seen], curve.loss[seen])


def scaled(curve: Curve) -> Curve:
    """The curve with rates in units of its peak, times PEAK."""
    rates = curve.rates * (PEAK / curve.rates.max())
    return Curve(curve.name, rates, curve.steps, curve.loss)


def predict_end(begun: Curve, like: Array, n_refits: int) -> Array:
    """(1 + n_refits): the loss at the last step of its rates, by the fit and by refits.

    like: theta of the law that says what the beginning cannot.
    """
    fallen = begun.rates[int(begun.steps.max())] <= FALLEN * begun.rates.max()
    held = HELD if fallen else tuple(s for s in SYMBOLS if s != "A")
    fit = fit_curves([begun], like=like, held=held, n_refits=n_refits)
    end = Curve(begun.name, begun.rates, np.array([begun.rates.size - 1]), np.array([np.nan]))
    value, refits = fit.predict(end)
    return np.append(value, refits[:, 0])


def predict(
    begun: Curve, peak: float, share: float, finished: Sequence[FinishedRun]
) -> Prediction | None:
    """The final validation loss of a run of which `begun`, scaled, is the first `share`; None where
    fewer than FEWEST runs are finished.

    finished: of comparable runs, the most comparable first.
    """
    from scipy.special import stdtrit

    finished = finished[:MOST]
    if len(finished) < FEWEST:
        return None
    ends = predict_end(begun, nearest(peak, finished).law, REFITS)
    errors = np.array(
        [
            one.error(share, nearest(one.peak, [f for f in finished if f is not one]))
            for one in finished
        ]
    )
    tail = (100 - LEVEL) / 200
    spread = float(errors.std(ddof=1)) * (1 + 1 / errors.size) ** 0.5
    half = float(stdtrit(errors.size - 1, 1 - tail)) * spread
    logs = np.log(np.maximum(ends, 1e-6))
    low, high = np.percentile(logs[1:] - logs[0], [100 * tail, 100 * (1 - tail)])
    middle = float(logs[0]) + float(errors.mean())
    return Prediction(
        float(np.exp(middle)),
        float(np.exp(middle + min(-half, low))),
        float(np.exp(middle + max(half, high))),
        errors.size,
    )


def nearest(peak: float, finished: Sequence[FinishedRun]) -> FinishedRun:
    """The finished run of the nearest peak learning rate; of another one, where there is any: what
    seeds of one setting have in common says nothing of the next setting."""
    others = [one for one in finished if one.peak != peak] or finished
    return min(others, key=lambda one: abs(np.log(one.peak / peak)))
