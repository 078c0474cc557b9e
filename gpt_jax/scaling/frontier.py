"""The compute-optimal frontier of a fit: the best N and D for a compute C = cost N D, and its loss.

A frontier holds F versions of a fit: row 0 is the estimate, the others are refits (bootstrap or
simulation), from which every answer gets its interval. Sizes, tokens, compute and losses are
natural logarithms here.

Must not import jax.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.constraints import groups_of, plain
from gpt_jax.scaling.laws import Array, Law, PowerSum, TwoTerms

WEIGHED = (("n_params", "n_tokens"), ("n_params", "n_tokens", "unique_tokens"))
"""Variables of laws that have a best N and D for a compute."""

USUAL_RATIOS = (1e-3, 1e6)
"""Range of tokens per parameter in which the best size of any law is searched."""
RATIO_STEPS = 61
SEARCH_STEPS = 90
"""Steps of a bisection or golden-section search: enough to shrink any range to rounding."""
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Frontier:
    """F versions of a compute-optimal frontier."""

    n_versions: int
    cost: float
    """FLOPs per parameter and token."""
    size: Callable[[Array], Array]
    """log C (F) -> log of the best N (F)"""
    loss: Callable[[Array], Array]
    """log C (F) -> log loss of the best run (F)"""
    loss_anywhere: Callable[[Array, Array], Array] | None = None
    """log N (F), log D (F) -> log loss (F), where the approach knows it off the frontier."""

    def tokens(self, log_c: Array) -> Array:
        """log C (F) -> log of the best D (F)."""
        return log_c - np.log(self.cost) - self.size(log_c)


def has_optimum(law: Law) -> bool:
    """Whether the law weighs parameters against tokens, and nothing else has to be chosen."""
    return law.variables in WEIGHED


def law_exponents(law: Law, theta: Array) -> dict[str, Array]:
    """{"a": (F), "b": (F)} with N_opt ~ C^a and D_opt ~ C^b; empty for laws without them.

    Of groups that do not share them {"a[group]": ...}.
    """
    if not has_optimum(law):
        return {}
    found: dict[str, Array] = {}
    labels = groups_of(law)
    for g, label in enumerate(labels or ("",)):
        terms = _terms_of_group(law, theta, g)
        if terms is None:
            return {}
        (_, alpha), (_, beta) = terms
        for name, value in (("a", beta / (alpha + beta)), ("b", alpha / (alpha + beta))):
            found[f"{name}[{label}]" if label else name] = value
    first = found.get(f"a[{labels[0]}]") if labels else None
    if first is not None and all(np.array_equal(first, found[f"a[{g}]"]) for g in labels):
        return {"a": first, "b": 1 - first}
    return found


def _terms_of_group(law: Law, theta: Array, group: int) -> TwoTerms | None:
    """The two terms of a law in N and D, as one group has them."""
    base, base_theta = plain(law, theta, group)
    return base.two_terms(base_theta)


def law_frontier(
    law: Law,
    theta: Array,
    cost: float,
    unique_tokens: float | None = None,
    group: int = 0,
) -> Frontier | None:
    """The frontier of a law of N and D, for each theta (F, P); none for other laws.

    unique_tokens: distinct tokens there are, for a law that knows repetition; none = unlimited.
    group: of a fit to several groups.
    """
    if not has_optimum(law):
        return None
    law, theta = plain(law, theta, group)

    def loss_anywhere(log_n: Array, log_d: Array) -> Array:
        unique = log_d if unique_tokens is None else np.full(log_d.shape, np.log(unique_tokens))
        x = {"n_params": log_n, "n_tokens": log_d, "unique_tokens": unique}
        return law.log_loss(theta, {k: v[:, None] for k, v in x.items()})[0][:, 0]

    def size(log_c: Array) -> Array:
        total = log_c - np.log(cost)
        terms = law.two_terms(theta)
        if unique_tokens is None and terms is not None:
            return _best_size(terms, total)
        if unique_tokens is None:
            return _least_inside(lambda n: loss_anywhere(n, total - n), total)
        return golden_section(lambda n: loss_anywhere(n, total - n), 0 * total, total)

    def loss(log_c: Array) -> Array:
        log_n = size(log_c)
        return loss_anywhere(log_n, log_c - np.log(cost) - log_n)

    return Frontier(len(theta), cost, size, loss, loss_anywhere)


def power_frontier(
    coefficients: Array, loss_law: PowerSum, loss_theta: Array, cost: float
) -> Frontier:
    """A frontier from power laws of optima.

    coefficients: (F, 2), log N = first + second log C. loss_theta: (F, P) of a law of compute.
    """

    def size(log_c: Array) -> Array:
        return coefficients[:, 0] + coefficients[:, 1] * log_c

    def loss(log_c: Array) -> Array:
        return loss_law.log_loss(loss_theta, {"flops": log_c[:, None]})[0][:, 0]

    return Frontier(len(coefficients), cost, size, loss)


def compute_for(frontier: Frontier, value: Callable[[Array], Array], target: float) -> Array:
    """log C (F) at which a monotone function of log C (F) reaches the target; nan if nowhere."""
    low = np.full(frontier.n_versions, np.log(1e3))
    high = np.full(frontier.n_versions, np.log(1e60))
    return bisect(lambda c: value(c) - target, low, high)


def bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where a monotone function crosses zero between low and high, elementwise; nan if nowhere."""
    at_low, at_high = function(low), function(high)
    bracketed = np.sign(at_low) != np.sign(at_high)
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        same = np.sign(function(middle)) == np.sign(at_low)
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.where(bracketed, (low + high) / 2, np.nan)


def golden_section(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where a function with one minimum between low and high has it, elementwise."""
    for _ in range(SEARCH_STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        keep_left = function(left) < function(right)
        low, high = np.where(keep_left, low, left), np.where(keep_left, right, high)
    return (low + high) / 2


def _least_inside(loss: Callable[[Array], Array], total: Array) -> Array:
    """log N (F) of the lowest minimum inside USUAL_RATIOS for log N + log D = total (F).

    A law that is no sum of two power laws may fall again where nothing is measured. Where there is
    no minimum inside, the lower end of the range.
    """
    few, many = np.log(USUAL_RATIOS)
    ratios = np.linspace(few, many, RATIO_STEPS)
    losses = np.stack([loss((total - ratio) / 2) for ratio in ratios])
    inside = np.zeros(losses.shape, bool)
    inside[1:-1] = (losses[1:-1] <= losses[:-2]) & (losses[1:-1] <= losses[2:])
    inside[[0, -1]] = ~inside.any(0)
    place = np.where(inside, losses, np.inf).argmin(0)
    low, high = (ratios[np.clip(place + k, 0, RATIO_STEPS - 1)] for k in (1, -1))
    return golden_section(loss, (total - low) / 2, (total - high) / 2)


def _best_size(terms: TwoTerms, log_nd: Array) -> Array:
    """log N that minimises A N^-alpha + B D^-beta for log N + log D = log_nd."""
    (log_a, alpha), (log_b, beta) = terms
    balance = log_a + np.log(alpha) - log_b - np.log(beta)
    return (balance + beta * log_nd) / (alpha + beta)
