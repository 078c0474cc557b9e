"""Answers from a fit: the best model for a compute, the compute for a loss, the data for a model.

Every number is an Estimate: the fit's, with intervals from its refits. They say how sure the law
is; a single run scatters around it besides.

Must not import jax.
"""

import functools
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.constraints import plain
from gpt_jax.scaling.fit import LawFit
from gpt_jax.scaling.frontier import Frontier, bisect, compute_for
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.uncertainty import LEVELS, percentiles

OVER_TRAINING = (2, 4, 8)
"""Times the optimal tokens per parameter."""

FREE_VARIABLE = {"compute": "flops", "n_params": "n_params"}
"""The variable of a one-variable law that a question gives."""


@dataclass(frozen=True)
class Estimate:
    """A number and its intervals: {level in percent: (low, high)}, empty without refits."""

    value: float
    intervals: dict[int, tuple[float, float]]


@dataclass(frozen=True)
class OverTrained:
    """A smaller model trained on more tokens than is optimal for its compute."""

    factor: int
    """Times the optimal tokens per parameter."""
    n_params: float
    n_tokens: float
    loss: float
    """At the same compute as the optimum."""
    extra_compute: float
    """Times the compute, to reach the optimum's loss at this many tokens per parameter."""
    n_params_same_loss: float


@dataclass(frozen=True)
class Answer:
    """A question and the compute-optimal run that answers it."""

    question: str
    given: float
    values: dict[str, Estimate]
    over_training: tuple[OverTrained, ...] = ()
    group: str = ""
    """Label of the group, for a fit to several groups; empty otherwise."""


def estimate(logs: Array) -> Estimate:
    """Estimate from natural logarithms (F): row 0 is the fit, the others are refits."""
    values = np.exp(logs)
    if values.size == 1:
        return Estimate(float(values[0]), {})
    edges = percentiles(values[1:, None])[0]
    pairs = zip(LEVELS, edges, strict=True)
    return Estimate(
        float(values[0]), {level: (float(low), float(high)) for level, (low, high) in pairs}
    )


def for_compute(frontier: Frontier, compute: float) -> Answer:
    """The best N, D and loss at a compute, and what training longer would cost."""
    log_c = np.full(frontier.n_versions, np.log(compute))
    return Answer("compute", compute, _optimum(frontier, log_c), _over_training(frontier, log_c))


def for_loss(frontier: Frontier, loss: float) -> Answer:
    """The least compute that reaches a loss; raises ValueError if none does."""
    log_c = compute_for(frontier, frontier.loss, float(np.log(loss)))
    if np.isnan(log_c[0]):
        floor = float(np.exp(frontier.loss(np.full(frontier.n_versions, np.log(1e60)))[0]))
        raise ValueError(
            f"--target-loss {loss}: no compute reaches it under this law, whose loss does not go "
            f"below {floor:.4f}"
        )
    return Answer("target_loss", loss, _optimum(frontier, log_c), _over_training(frontier, log_c))


def for_size(frontier: Frontier, n_params: float) -> Answer:
    """The compute for which this size is the best, and its tokens and loss."""
    log_c = compute_for(frontier, frontier.size, float(np.log(n_params)))
    if np.isnan(log_c[0]):
        raise ValueError(f"--n-params {n_params:g}: this size is optimal for no compute")
    return Answer("n_params", n_params, _optimum(frontier, log_c), _over_training(frontier, log_c))


def from_one_variable(
    fit: LawFit, refits: Array, question: str, given: float, group: int = 0
) -> Answer:
    """Answer from a law in one variable: the variable for a given loss, or the loss for its value.

    Raises ValueError if the law has no such variable, or never reaches the loss.
    """
    variable, *others = fit.law.variables
    law, theta = plain(fit.law, np.concatenate([fit.theta[None], refits]), group)
    if others or (question != "target_loss" and FREE_VARIABLE[question] != variable):
        option = question.replace("_", "-")
        raise ValueError(
            f"--{option}: {fit.entry.name} is a law of {', '.join(law.variables)} and does not "
            f"answer this; chinchilla-parametric, for one, does"
        )

    def value(log_x: Array) -> Array:
        return law.log_loss(theta, {variable: log_x[:, None]})[0][:, 0]

    ones = np.ones(len(theta))
    if question != "target_loss":
        logs = value(np.log(given) * ones)
        return Answer(question, given, {fit.entry.target: estimate(logs)})
    log_x = bisect(lambda at: value(at) - np.log(given), np.log(1e-3) * ones, np.log(1e60) * ones)
    if np.isnan(log_x[0]):
        raise ValueError(f"--target-loss {given}: no {variable} reaches it under this law")
    return Answer(question, given, {variable: estimate(log_x)})


def _optimum(frontier: Frontier, log_c: Array) -> dict[str, Estimate]:
    size, tokens = frontier.size(log_c), frontier.tokens(log_c)
    return {
        "compute": estimate(log_c),
        "n_params": estimate(size),
        "n_tokens": estimate(tokens),
        "tokens_per_param": estimate(tokens - size),
        "loss": estimate(frontier.loss(log_c)),
    }


def _over_training(frontier: Frontier, log_c: Array) -> tuple[OverTrained, ...]:
    anywhere = frontier.loss_anywhere
    if anywhere is None:
        return ()
    size, tokens, best = frontier.size(log_c), frontier.tokens(log_c), frontier.loss(log_c)

    def excess(log_n: Array, log_ratio: Array) -> Array:
        return anywhere(log_n, log_n + log_ratio) - best

    found = []
    for factor in OVER_TRAINING:
        log_factor = np.log(factor)
        n, d = size - log_factor / 2, tokens + log_factor / 2
        ratio = tokens - size + log_factor
        same = bisect(functools.partial(excess, log_ratio=ratio), n, n + 30)
        found.append(
            OverTrained(
                factor=factor,
                n_params=float(np.exp(n[0])),
                n_tokens=float(np.exp(d[0])),
                loss=float(np.exp(anywhere(n, d)[0])),
                extra_compute=float(np.exp(2 * same[0] + ratio[0] - size[0] - tokens[0])),
                n_params_same_loss=float(np.exp(same[0])),
            )
        )
    return tuple(found)
