"""Scaling laws as functions of free parameters, with exact gradients, batched over fits.

A law turns the logarithms of its variables (n_params, n_tokens, flops, ...) into the logarithm of
the loss. Its free parameters `theta` are unbounded-looking coordinates in which fits are well
conditioned (logarithms, taken relative to the middle of the data); `symbols_of` turns them into the
parameters the papers print. Everything is batched over fits, so that many starts, bootstrap
refits and profiles are solved at once. Dims: F fits, R runs, P free parameters.

Must not import jax.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Array = np.ndarray
Style = Literal["coefficient", "scale", "signed", "inverse"]
"""How a power law is printed, see PowerSum."""
LogVariables = Mapping[str, Array]
"""{variable: natural logarithm, one per run (R), or one per fit and run (F, R)}"""

TwoTerms = tuple[tuple[Array, Array], tuple[Array, Array]]

EXPONENT_RANGE = (1e-4, 20.0)
LOG_COEFFICIENT_RANGE = (-60.0, 60.0)
"""Bounds of the logarithm of a term at the middle of the data: e^-60 nats contribute nothing."""
LOG_IRREDUCIBLE_RANGE = (-20.0, 10.0)
SYMBOL_RANGE = (-1e4, 1e4)


class Law(Protocol):
    """Law, as the solver and the reports use it; `PositiveLaw` has the last three methods."""

    @property
    def formula(self) -> str:
        """With the paper's symbols."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Columns it is a function of."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the printed parameters, as many as free ones."""

    @property
    def bounds(self) -> Array:
        """(P, 2): lowest and highest value of each free parameter."""

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        """theta (F, P) -> log loss (F, R) and its gradient (F, P, R)."""

    def starts(self, x: LogVariables, loss: Array) -> Array:
        """(F, P): starts covering the exponents, coefficients solved for by linear regression.

        As many for any runs, and the k-th of the same exponents: a fit of several groups takes
        the k-th of each.
        """

    @property
    def signs(self) -> Array:
        """(P): of the printed parameters, where the law fixes them; 0 where it does not."""

    def log_symbols(self, theta: Array) -> Array:
        """theta (F, P) -> log of the size of the printed parameters (F, P).

        Scales such as N_c overflow where an exponent is nearly zero; their logarithms do not.
        Where the sign is free (0 in `signs`) the parameter itself.
        """

    def from_log_symbols(self, logs: Array) -> Array:
        """The inverse of `log_symbols`, (F, P) -> (F, P), analytic: complex numbers pass through
        it, and their imaginary part is its derivative."""

    def values(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        """theta (F, P) -> loss (F, R) and its gradient (F, P, R): log_loss without the logarithm.

        A law whose values may be negative computes them here, and log_loss is nan there.
        """

    def symbol_range(self) -> Array:
        """(P, 2): of log_symbols; wide where theta's bounds are meant."""

    def from_symbols(self, values: Mapping[str, float]) -> Array:
        """Printed parameters -> theta (P)."""

    def two_terms(self, theta: Array) -> TwoTerms | None:
        """(log coefficient (F), exponent (F)) of the term in the first variable and in the second.

        Whatever wraps their sum is monotone, so that the best of both at a cost depends on nothing
        else; none if the law is no such sum.
        """


class PositiveLaw:
    """The methods of a law that follow from its others, where its values are positive."""

    def values(self: Law, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        log_loss, gradient = self.log_loss(theta, x)
        with np.errstate(over="ignore"):
            loss = np.exp(log_loss)
        return loss, gradient * loss[:, None]

    def symbol_range(self: Law) -> Array:
        return np.tile(SYMBOL_RANGE, (len(self.symbols), 1))

    def two_terms(self: Law, theta: Array) -> TwoTerms | None:
        return None

    def from_symbols(self: Law, values: Mapping[str, float]) -> Array:
        given = np.array([values[symbol] for symbol in self.symbols])
        return self.from_log_symbols(to_logs(given, self.signs)[None])[0]


def to_logs(values: Array, signs: Array) -> Array:
    """Printed parameters as `log_symbols` has them."""
    sizes = np.where(signs == 0, 1.0, signs * values)
    return np.where(signs == 0, values, np.log(sizes))


@dataclass(frozen=True)
class PowerSum(PositiveLaw):
    """loss = sum over variables of a power law, plus an irreducible loss where asked.

    theta: (log term at the centre, exponent) per variable, then log of the irreducible loss.
    `style` says how a term is printed, for the k-th variable x with symbols (s, t):
    coefficient: s / x^t; scale: (s / x)^t; signed: s x^t; inverse: s / x^(1/t).
    """

    variables: tuple[str, ...]
    terms: tuple[tuple[str, str], ...]
    formula: str
    style: Style
    centers: tuple[float, ...]
    irreducible: str | None = None
    """Symbol of the irreducible loss; none = the loss goes to zero."""

    @property
    def symbols(self) -> tuple[str, ...]:
        flat = tuple(symbol for term in self.terms for symbol in term)
        return flat + ((self.irreducible,) if self.irreducible else ())

    @property
    def bounds(self) -> Array:
        rows = [LOG_COEFFICIENT_RANGE, EXPONENT_RANGE] * len(self.terms)
        return np.array(rows + [LOG_IRREDUCIBLE_RANGE] * bool(self.irreducible))

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        offsets = [x[v] - c for v, c in zip(self.variables, self.centers, strict=True)]
        logs = [
            theta[:, 2 * k, None] - theta[:, 2 * k + 1, None] * o for k, o in enumerate(offsets)
        ]
        if self.irreducible:
            logs.append(np.broadcast_to(theta[:, -1:], logs[0].shape))
        total, shares = log_sum(logs)
        gradient = np.empty((len(theta), theta.shape[1], total.shape[1]))
        for k, offset in enumerate(offsets):
            gradient[:, 2 * k] = shares[k]
            gradient[:, 2 * k + 1] = -shares[k] * offset
        if self.irreducible:
            gradient[:, -1] = shares[-1]
        return total, gradient

    def starts(self, x: LogVariables, loss: Array) -> Array:
        offsets = [x[v] - c for v, c in zip(self.variables, self.centers, strict=True)]
        exponents = grid(np.geomspace(0.02, 4.0, 14 if len(offsets) > 1 else 60), len(offsets))
        columns = [np.exp(-exponents[:, k, None] * o) for k, o in enumerate(offsets)]
        if self.irreducible:
            columns.append(np.ones((len(exponents), loss.size)))
        coefficients = solve_positive(np.stack(columns, 1), loss)
        theta = np.empty((len(exponents), len(self.symbols)))
        for k in range(len(offsets)):
            theta[:, 2 * k] = np.log(coefficients[:, k])
            theta[:, 2 * k + 1] = exponents[:, k]
        if self.irreducible:
            theta[:, -1] = np.log(coefficients[:, -1])
        return theta

    @property
    def signs(self) -> Array:
        exponent = -1.0 if self.style == "signed" else 1.0
        return np.array([1.0, exponent] * len(self.terms) + [1.0] * bool(self.irreducible))

    def log_symbols(self, theta: Array) -> Array:
        logs = theta.copy()
        for k, center in enumerate(self.centers):
            exponent = theta[:, 2 * k + 1]
            logs[:, 2 * k] += exponent * center
            logs[:, 2 * k + 1] = np.log(exponent)
            if self.style == "scale":
                logs[:, 2 * k] /= exponent
            elif self.style == "inverse":
                logs[:, 2 * k + 1] *= -1
        return logs

    def from_log_symbols(self, logs: Array) -> Array:
        theta = logs.copy()
        for k, center in enumerate(self.centers):
            inverse = -1 if self.style == "inverse" else 1
            exponent = np.exp(inverse * logs[:, 2 * k + 1])
            theta[:, 2 * k + 1] = exponent
            if self.style == "scale":
                theta[:, 2 * k] *= exponent
            theta[:, 2 * k] -= exponent * center
        return theta

    def two_terms(self, theta: Array) -> TwoTerms | None:
        if len(self.variables) != 2:
            return None
        log_a, log_b = (theta[:, 2 * k] + theta[:, 2 * k + 1] * self.centers[k] for k in (0, 1))
        return (log_a, theta[:, 1]), (log_b, theta[:, 3])

    def symbol_range(self) -> Array:
        scale = 20.0 * max(map(abs, self.centers), default=0.0) + 60.0
        if self.style == "scale":
            scale /= EXPONENT_RANGE[0]
        exponent = np.log(EXPONENT_RANGE)
        power = -exponent[::-1] if self.style == "inverse" else exponent
        rows = [np.array([-scale, scale]), power] * len(self.terms)
        return np.array(rows + [np.array(LOG_IRREDUCIBLE_RANGE)] * bool(self.irreducible))


def one_power(
    variable: str,
    scale: str,
    exponent: str,
    left: str,
    style: Style,
    centers: tuple[float, ...],
    irreducible: str | None,
) -> PowerSum:
    """A power law in one variable, printed in the style of its paper; left: of the equals sign."""
    letter = scale[0]
    tail = f" + {irreducible}" if irreducible else ""
    formulas = {
        "scale": f"{left} = ({scale}/{letter})^{exponent}{tail}",
        "signed": f"{left} = {scale} C^{exponent}{tail}",
        "inverse": f"{left} = {scale} / L^(1/{exponent})",
    }
    terms = ((scale, exponent),)
    return PowerSum((variable,), terms, formulas[style], style, centers, irreducible)


@dataclass(frozen=True)
class KaplanND(PositiveLaw):
    """loss = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D (Kaplan et al. 2020, eq. 1.5).

    theta: (log of the first summand at the centre, alpha_N / alpha_D, log of the second, alpha_D,
    and log of the irreducible loss where asked, which is added outside the bracket).
    """

    centers: tuple[float, float]
    irreducible: str | None = None
    variables: tuple[str, ...] = ("n_params", "n_tokens")

    @property
    def formula(self) -> str:
        prefix = f"{self.irreducible} + " if self.irreducible else ""
        return f"L = {prefix}[(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D"

    @property
    def symbols(self) -> tuple[str, ...]:
        named = ("N_c", "alpha_N", "D_c", "alpha_D")
        return (*named, self.irreducible) if self.irreducible else named

    @property
    def bounds(self) -> Array:
        # The summands carry the loss to the power 1 / alpha_D: their logarithms can be large.
        log_summand = tuple(20 * b for b in LOG_COEFFICIENT_RANGE)
        rows = [log_summand, EXPONENT_RANGE, log_summand, EXPONENT_RANGE]
        return np.array(rows + [LOG_IRREDUCIBLE_RANGE] * bool(self.irreducible))

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        n, d = (x[v] - c for v, c in zip(self.variables, self.centers, strict=True))
        inner, (share_n, share_d) = log_sum([theta[:, :1] - theta[:, 1:2] * n, theta[:, 2:3] - d])
        power = theta[:, 3:4]
        total, outside = power * inner, np.ones_like(inner)
        if self.irreducible:
            total, shares = log_sum([total, np.broadcast_to(theta[:, 4:], inner.shape)])
            outside = shares[0]
        gradient = [outside * power * share_n, -outside * power * share_n * n]
        gradient += [outside * power * share_d, outside * inner]
        if self.irreducible:
            gradient.append(1 - outside)
        return total, np.stack(gradient, 1)

    def starts(self, x: LogVariables, loss: Array) -> Array:
        n, d = (x[v] - c for v, c in zip(self.variables, self.centers, strict=True))
        shares = np.array([0.01, 0.3, 0.6, 0.9]) if self.irreducible else np.zeros(1)
        found = []
        for share in shares:
            for alpha_d in np.geomspace(0.02, 1.5, 12):
                ratios = np.geomspace(0.1, 10, 16)
                columns = np.stack(
                    [np.exp(-ratios[:, None] * n), np.exp(-d)[None].repeat(16, 0)], 1
                )
                reducible = loss - share * loss.min()
                coefficients = solve_positive(columns, (reducible / loss.mean()) ** (1 / alpha_d))
                logs = np.log(coefficients) + np.log(loss.mean()) / alpha_d
                rows = [logs[:, 0], ratios, logs[:, 1], np.full(16, alpha_d)]
                if self.irreducible:
                    rows.append(np.full(16, np.log(share * loss.min())))
                found.append(np.stack(rows, 1))
        return np.concatenate(found)

    @property
    def signs(self) -> Array:
        return np.ones(len(self.symbols))

    def log_symbols(self, theta: Array) -> Array:
        logs = theta.copy()
        logs[:, 0] = theta[:, 0] / theta[:, 1] + self.centers[0]
        logs[:, 1] = np.log(theta[:, 1] * theta[:, 3])
        logs[:, 2] = theta[:, 2] + self.centers[1]
        logs[:, 3] = np.log(theta[:, 3])
        return logs

    def from_log_symbols(self, logs: Array) -> Array:
        theta = logs.copy()
        ratio = np.exp(logs[:, 1] - logs[:, 3])
        theta[:, 0] = ratio * (logs[:, 0] - self.centers[0])
        theta[:, 1] = ratio
        theta[:, 2] = logs[:, 2] - self.centers[1]
        theta[:, 3] = np.exp(logs[:, 3])
        return theta

    def two_terms(self, theta: Array) -> TwoTerms | None:
        log_a, log_b = theta[:, 0] + theta[:, 1] * self.centers[0], theta[:, 2] + self.centers[1]
        return (log_a, theta[:, 1]), (log_b, np.ones(len(theta)))


def symbols_of(law: Law, theta: Array) -> Array:
    """theta (F, P) -> printed parameters (F, P); what overflows is infinite."""
    with np.errstate(over="ignore"):
        logs, signs = law.log_symbols(theta), law.signs
        return np.where(signs == 0, logs, signs * np.exp(np.where(signs == 0, 0.0, logs)))


def log_sum(logs: list[Array]) -> tuple[Array, list[Array]]:
    """log of the sum of exponentials, and the share of each summand."""
    largest = logs[0]
    for term in logs[1:]:
        largest = np.maximum(largest, term)
    exponentials = [np.exp(term - largest) for term in logs]
    total = sum(exponentials[1:], exponentials[0])
    return largest + np.log(total), [e / total for e in exponentials]


def grid(values: Array, dims: int) -> Array:
    """(len(values) ** dims, dims): every combination."""
    return np.stack(np.meshgrid(*[values] * dims, indexing="ij"), -1).reshape(-1, dims)


def solve_positive(columns: Array, target: Array) -> Array:
    """Coefficients (F, K) that fit columns (F, K, R) to target (R) with small relative errors.

    A start, not an answer: what comes out negative is set to a thousandth of the target.
    """
    scaled = columns / target
    normal = scaled @ scaled.transpose(0, 2, 1)
    ridge = 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(normal.shape[1])
    solution = np.linalg.solve(normal + ridge, scaled.sum(2)[..., None])[..., 0]
    floor = 1e-3 * target.mean() / columns.mean(2)
    return np.maximum(solution, floor)
