"""The data-constrained law: what repeated tokens and excess parameters are still worth.

Must not import jax.
"""

from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import (
    EXPONENT_RANGE,
    LOG_COEFFICIENT_RANGE,
    LOG_IRREDUCIBLE_RANGE,
    Array,
    LogVariables,
    PositiveLaw,
    PowerSum,
    TwoTerms,
    grid,
    log_sum,
    solve_positive,
)

LOG_WORTH_RANGE = (-7.0, 14.0)


@dataclass(frozen=True)
class DataConstrained(PositiveLaw):
    """loss = E + A / N'^alpha + B / D'^beta (Muennighoff et al. 2023, section 3.1).

    D' = U_D + U_D R_D* (1 - exp(-R_D / R_D*)) for U_D distinct tokens seen 1 + R_D times, and N'
    likewise with U_N, the parameters that are compute-optimal for U_D tokens under the same A, B,
    alpha and beta (or N, if that is less). All seven parameters are fitted together.

    theta: (log A term at the centre, alpha, log B term, beta, log E, log R_N*, log R_D*).
    """

    centers: tuple[float, float]
    formula: str = "L = E + A/N'^alpha + B/D'^beta"
    variables: tuple[str, ...] = ("n_params", "n_tokens", "unique_tokens")
    symbols: tuple[str, ...] = ("A", "alpha", "B", "beta", "E", "R_N_star", "R_D_star")

    @property
    def base(self) -> PowerSum:
        """The law where nothing is repeated."""
        return PowerSum(
            variables=("n_params", "n_tokens"),
            terms=(("A", "alpha"), ("B", "beta")),
            formula="L = E + A/N^alpha + B/D^beta",
            style="coefficient",
            centers=self.centers,
            irreducible="E",
        )

    @property
    def bounds(self) -> Array:
        rows = [LOG_COEFFICIENT_RANGE, EXPONENT_RANGE] * 2
        return np.array([*rows, LOG_IRREDUCIBLE_RANGE, LOG_WORTH_RANGE, LOG_WORTH_RANGE])

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        a, alpha, b, beta, e, worth_n, worth_d = (theta[:, k, None] for k in range(7))
        log_d, log_n = x["n_tokens"], x["n_params"]
        log_unique = np.minimum(x["unique_tokens"], log_d)
        n, u = log_n - self.centers[0], log_unique - self.centers[1]
        # alpha A N^-alpha = beta B D^-beta at the compute-optimum: N as a function of D = U_D.
        needed = (a - b + np.log(alpha / beta) + beta * u) / alpha
        excess = np.maximum(n - needed, 0.0)
        log_n_worth, by_unique_n, by_worth_n = _worth(excess, worth_n)
        log_n_worth = log_n_worth + np.minimum(n, needed)
        log_d_worth, _, by_worth_d = _worth(np.broadcast_to(log_d - log_unique, n.shape), worth_d)
        log_d_worth = log_d_worth + u
        total, (share_n, share_d, share_e) = log_sum(
            [a - alpha * log_n_worth, b - beta * log_d_worth, np.broadcast_to(e, excess.shape)]
        )
        pull = np.where(excess > 0, -alpha * share_n * by_unique_n, 0.0)
        gradient = np.empty((len(theta), 7, total.shape[1]))
        gradient[:, 0] = share_n + pull / alpha
        gradient[:, 1] = -share_n * log_n_worth + pull * (1 / alpha - needed) / alpha
        gradient[:, 2] = share_d - pull / alpha
        gradient[:, 3] = -share_d * log_d_worth + pull * (u - 1 / beta) / alpha
        gradient[:, 4] = share_e
        gradient[:, 5] = -alpha * share_n * by_worth_n
        gradient[:, 6] = -beta * share_d * by_worth_d
        return total, gradient

    def starts(self, x: LogVariables, loss: Array) -> Array:
        exponents = grid(np.geomspace(0.05, 1.5, 7), 2)
        log_unique = np.minimum(x["unique_tokens"], x["n_tokens"])
        n, u = x["n_params"] - self.centers[0], log_unique - self.centers[1]
        found = []
        for worth_n, worth_d in grid(np.log([1.0, 5.0, 25.0]), 2):
            gain, _, _ = _worth((x["n_tokens"] - log_unique)[None], np.array([[worth_d]]))
            columns = [np.exp(-exponents[:, :1] * n), np.exp(-exponents[:, 1:] * (u + gain))]
            columns.append(np.ones_like(columns[0]))
            logs = np.log(solve_positive(np.stack(columns, 1), loss))
            rows = [logs[:, 0], exponents[:, 0], logs[:, 1], exponents[:, 1], logs[:, 2]]
            rows += [np.full(len(logs), worth_n), np.full(len(logs), worth_d)]
            found.append(np.stack(rows, 1))
        return np.concatenate(found)

    @property
    def signs(self) -> Array:
        return np.ones(7)

    def log_symbols(self, theta: Array) -> Array:
        return np.concatenate([self.base.log_symbols(theta[:, :5]), theta[:, 5:]], 1)

    def from_log_symbols(self, logs: Array) -> Array:
        return np.concatenate([self.base.from_log_symbols(logs[:, :5]), logs[:, 5:]], 1)

    def two_terms(self, theta: Array) -> TwoTerms | None:
        return self.base.two_terms(theta[:, :5])

    def symbol_range(self) -> Array:
        return np.concatenate([self.base.symbol_range(), [LOG_WORTH_RANGE] * 2])


def _worth(log_ratio: Array, log_worth: Array) -> tuple[Array, Array, Array]:
    """log of x'/u for x = u e^log_ratio, with its derivatives to log u (x held) and log_worth.

    x' = u (1 + R* (1 - exp(-r / R*))), r = x / u - 1 repetitions, R* = e^log_worth.
    """
    # Beyond e^300 repetitions nothing is added any more, and exp would overflow.
    ratio, star = np.exp(np.minimum(log_ratio, 300.0)), np.exp(log_worth)
    decay = np.exp(-(ratio - 1) / star)
    factor = 1 - star * np.expm1(-(ratio - 1) / star)
    by_unique = 1 - decay * ratio / factor
    by_worth = (star * (1 - decay) - (ratio - 1) * decay) / factor
    return np.log(factor), by_unique, by_worth
