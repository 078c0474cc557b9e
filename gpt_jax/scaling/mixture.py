"""Losses of domains against the shares of domains in training: the exponential law.

L_i(r) = c_i + exp(sum_j t_ij r_j) (Ye et al., arXiv 2403.16952, eq. 2; shares sum to 1, so that
their factor k_i is within t_i). One law for each domain whose loss is measured. Dims: F fits, R
runs, J shares. Must not import jax.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import Array, LogVariables
from gpt_jax.scaling.minimise import minimise
from gpt_jax.scaling.uncertainty import LEVELS

FLOORS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.97, 0.99)
"""Starts of c as shares of the lowest loss."""
SEARCHED = 20_000
"""Random mixtures that the best one is searched among, before it is refined."""


@dataclass(frozen=True)
class Exponential:
    """theta: (c, t_1 .. t_J); x["shares"] is (R, J)."""

    n_shares: int
    highest: float
    """c stays below it."""

    @property
    def bounds(self) -> Array:
        return np.array([[0.0, self.highest]] + [[-60.0, 60.0]] * self.n_shares)

    def values(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        shares = x["shares"]
        term = np.exp(theta[:, 1:] @ shares.T)
        gradient = np.concatenate([np.ones_like(term)[:, None], term[:, None] * shares.T], 1)
        return theta[:, :1] + term, gradient

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        value, gradient = self.values(theta, x)
        return np.log(value), gradient / value[:, None]


@dataclass(frozen=True)
class DomainFit:
    """The law of one domain's loss."""

    domain: str
    law: Exponential
    theta: Array
    """(1 + J)"""
    covariance: Array
    quantiles: dict[int, float]
    scatter: float
    """Standard deviation of a run around the law"""

    def predict(self, shares: Array) -> tuple[Array, Array]:
        """shares (R, J) -> losses (R) and the standard errors of the law (R)."""
        value, gradient = self.law.values(self.theta[None], {"shares": shares})
        error = np.sqrt(np.einsum("pr,pq,qr->r", gradient[0], self.covariance, gradient[0]))
        return value[0], error

    def intervals(self, shares: Array) -> dict[int, Array]:
        """{level: (R, 2)} of the law, without a run's scatter."""
        value, error = self.predict(shares)
        return {
            k: np.stack([value - t * error, value + t * error], 1)
            for k, t in self.quantiles.items()
        }


def fit_domain(domain: str, shares: Array, loss: Array) -> DomainFit:
    """The least sum of squares of losses, from several floors; shares (R, J), loss (R)."""
    from scipy.special import stdtrit

    n_free = shares.shape[1] + 1
    if loss.size <= n_free:
        raise ValueError(f"{domain}: {loss.size} runs; the law has {n_free} parameters")
    law = Exponential(shares.shape[1], float(loss.min()) * 0.999)
    starts = []
    for floor in FLOORS:
        c = floor * float(loss.min())
        starts.append([c, *np.linalg.lstsq(shares, np.log(loss - c), rcond=None)[0]])
    x = {"shares": shares}
    found = minimise(law, x, loss, np.array(starts), np.inf, space="linear", iterations=500)
    theta = found.theta[found.objective.argmin()]
    value, gradient = law.values(theta[None], x)
    freedom = loss.size - n_free
    variance = float(((loss - value[0]) ** 2).sum()) / freedom
    # A floor at its bound is held there.
    free = (theta > law.bounds[:, 0] + 1e-9) & (theta < law.bounds[:, 1] - 1e-9)
    covariance = np.zeros((n_free, n_free))
    jacobian = gradient[0][free]
    covariance[np.ix_(free, free)] = variance * np.linalg.pinv(jacobian @ jacobian.T, rcond=1e-12)
    quantiles = {level: float(stdtrit(freedom, 0.5 + level / 200)) for level in LEVELS}
    return DomainFit(domain, law, theta, covariance, quantiles, variance**0.5)


@dataclass(frozen=True)
class BestMixture:
    """Shares of the lowest weighted mean of domain losses under the laws."""

    shares: Array
    loss: float
    error: float
    """Standard error of the laws there"""


def best_mixture(
    fits: Sequence[DomainFit], weights: Array, low: Array, high: Array, seed: int = 0
) -> BestMixture:
    """Minimise sum of weights * loss over shares between low and high (J) that sum to 1."""
    from scipy.optimize import minimize

    n_shares = low.size

    def total(shares: Array) -> Array:
        return sum(w * fit.predict(shares)[0] for w, fit in zip(weights, fits, strict=True))

    rng = np.random.default_rng(seed)
    tried = rng.dirichlet(np.ones(n_shares), SEARCHED)
    tried = tried[((tried >= low) & (tried <= high)).all(1)]
    if not tried.size:
        tried = (low + (1 - low.sum()) * (high - low) / (high - low).sum())[None]
    best = tried[total(tried).argmin()]
    found = minimize(
        lambda r: float(total(r[None])[0]), best, method="SLSQP",
        bounds=list(zip(low, high, strict=True)),
        constraints={"type": "eq", "fun": lambda r: r.sum() - 1},
    )  # fmt: skip
    shares = found.x if found.success and found.fun < total(best[None])[0] else best
    errors = np.array([fit.predict(shares[None])[1][0] for fit in fits])
    error = float(np.sqrt(((weights * errors) ** 2).sum()))
    return BestMixture(shares, float(total(shares[None])[0]), error)


def r_squared(measured: Array, predicted: Array) -> float:
    """Share of the variance that a prediction explains."""
    return float(
        1 - ((measured - predicted) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()
    )
