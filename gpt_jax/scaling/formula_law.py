"""A law from a formula in text: parameters, exact derivatives, and starts found from its shape.

Must not import jax.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpt_jax.scaling.conditions import ALIASES
from gpt_jax.scaling.expressions import Dual, check_formula, evaluate, names_of, parse
from gpt_jax.scaling.laws import Array, LogVariables, TwoTerms, to_logs

N_STARTS = 512
LINEAR_STARTS = 4
"""Where the loss, or its log, is linear in all parameters, a start is the minimum already."""
LOG_RANGE = (-80.0, 80.0)
"""Bounds of the logarithm of the size of a parameter whose sign is given."""
LINEAR_RANGE = (-1e6, 1e6)
EXPONENTS = (0.02, 4.0)
"""Range of starting values of parameters in an exponent."""
SCALES = (1e-6, 1e20)
"""Sizes at which others are started that the formula is no sum of."""
FLOOR = 1e-3
"""Least share of the target's mean size that a term of given sign has; a wrong sign gets it."""
BOUND = re.compile(
    r"^(?:(?P<low>[^<>]+)<)?\s*(?P<name>[A-Za-z_]\w*)\s*(?:(?P<side>[<>])(?P<edge>[^<>]+))?$"
)

Starts = Callable[[LogVariables, Array], Array]
"""(logarithms of the columns, loss (R)) -> printed parameters (starts, P)"""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a formula."""

    name: str
    low: float = -np.inf
    high: float = np.inf

    @property
    def sign(self) -> float:
        """1 or -1 where its limits give it one; 0 where either is allowed."""
        return 1.0 if self.low >= 0 else -1.0 if self.high <= 0 else 0.0

    @property
    def limits(self) -> tuple[float, float]:
        """Bounds of log_symbols: of the log size where the sign is given, else of the value."""
        if not self.sign:
            return max(self.low, LINEAR_RANGE[0]), min(self.high, LINEAR_RANGE[1])
        near, far = sorted([abs(self.low), abs(self.high)])
        low = np.log(near) if near > 0 else LOG_RANGE[0]
        return low, np.log(far) if np.isfinite(far) else LOG_RANGE[1]


def parse_parameters(text: str, option: str = "--params") -> tuple[Parameter, ...]:
    """`A>0,b<0,c,0.1<alpha<0.8`; raises ValueError for another form."""
    found = [_parameter(part.strip(), option) for part in text.split(",") if part.strip()]
    names = [parameter.name for parameter in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{option}: {twice[0]} is there twice")
    return tuple(found)


def _parameter(text: str, option: str) -> Parameter:
    match = BOUND.match(text)
    try:
        if match is None:
            raise ValueError
        low, high = float(match["low"] or -np.inf), np.inf
        if match["side"] == "<":
            high = float(match["edge"])
        elif match["side"]:
            low = float(match["edge"])
        if not low < high:
            raise ValueError
    except ValueError:
        raise ValueError(f"{option} {text}: expected A, A>0, A<0 or 0.1<A<0.8") from None
    return Parameter(match["name"], low, high)


@dataclass(frozen=True)
class FormulaLaw:
    """loss = a formula of columns and parameters.

    theta: `log_symbols`: logarithms of the sizes of parameters whose sign is given, the others
    themselves.
    """

    text: str
    parameters: tuple[Parameter, ...]
    columns: Mapping[str, str]
    """{name in the formula: column}"""
    target: str = "L"
    own_starts: Starts | None = None
    """Function that computes the starts, where the formula's shape does not give good ones."""

    @property
    def formula(self) -> str:
        return f"{self.target} = {self.text}"

    @cached_property
    def tree(self) -> ast.expr:
        return parse(self.text, "--formula")

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """N and D first, for the answers that weigh them."""
        first = {"n_params": 0, "n_tokens": 1, "unique_tokens": 2}
        return tuple(sorted(self.columns.values(), key=lambda column: first.get(column, 3)))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def signs(self) -> Array:
        return np.array([parameter.sign for parameter in self.parameters])

    @cached_property
    def bounds(self) -> Array:
        return np.array([parameter.limits for parameter in self.parameters])

    def symbol_range(self) -> Array:
        return self.bounds

    def log_symbols(self, theta: Array) -> Array:
        return theta

    def from_log_symbols(self, logs: Array) -> Array:
        return logs

    def from_symbols(self, values: Mapping[str, float]) -> Array:
        return to_logs(np.array([values[symbol] for symbol in self.symbols]), self.signs)

    def two_terms(self, theta: Array) -> TwoTerms | None:
        return None

    def values(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        sizes = np.where(self.signs == 0, theta, self.signs * np.exp(theta * (self.signs != 0)))
        found = self._evaluate(sizes, x)
        n_runs = max(x[name].shape[-1] for name in self.variables)
        shape = len(theta), n_runs
        gradient = np.zeros((len(theta), len(self.symbols), n_runs))
        for k, name in enumerate(self.symbols):
            if name in found.slopes:
                # d size / d log size = size
                chain = 1.0 if self.signs[k] == 0 else sizes[:, k, None]
                gradient[:, k] = found.slopes[name] * chain
        return np.broadcast_to(found.value, shape), gradient

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        value, gradient = self.values(theta, x)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.log(value), gradient / value[:, None]

    def starts(self, x: LogVariables, loss: Array) -> Array:
        with np.errstate(all="ignore"):
            if self.own_starts is not None:
                sizes = self.own_starts(x, loss)
            else:
                sizes = self._solved(self._draws(), x, loss)
            signs = self.signs
            sizes = np.where(signs * sizes < 0, signs * np.exp(LOG_RANGE[0]), sizes)
            logs = np.where(signs == 0, sizes, np.log(np.abs(sizes) + (signs == 0)))
        return np.clip(np.nan_to_num(logs), *self.bounds.T)

    def _evaluate(self, sizes: Array, x: LogVariables) -> Dual:
        """sizes (F, P): the parameters themselves."""
        leaves = {
            name: Dual(sizes[:, k, None], {name: np.ones((1, 1))})
            for k, name in enumerate(self.symbols)
        }
        for name, column in self.columns.items():
            logs = x[column]
            leaves[name] = Dual(np.exp(logs if logs.ndim == 2 else logs[None]), {})
        return evaluate(self.tree, leaves)

    def _draws(self) -> Array:
        """(N_STARTS, P): sizes spread evenly over what is usual, with either sign where free."""
        unit = _halton(N_STARTS, 2 * len(self.parameters))
        inside = _in_exponents(self.tree)
        found = np.empty((N_STARTS, len(self.parameters)))
        for k, parameter in enumerate(self.parameters):
            low, high = np.log(EXPONENTS if parameter.name in inside else SCALES)
            size = np.exp(low + (high - low) * unit[:, k])
            sign = parameter.sign or np.where(unit[:, -1 - k] < 0.5, -1.0, 1.0)
            edges = np.clip([parameter.low, parameter.high], *LINEAR_RANGE)
            bounded = (
                parameter.name in inside and np.isfinite([parameter.low, parameter.high]).all()
            )
            spread = edges[0] + (edges[1] - edges[0]) * unit[:, k]
            if edges[0] > 0:
                spread = edges[0] * (edges[1] / edges[0]) ** unit[:, k]
            found[:, k] = spread if bounded else np.clip(sign * size, *edges)
        return found

    def _solved(self, sizes: Array, x: LogVariables, loss: Array) -> Array:
        """The draws with those parameters solved for in which the loss, or its log, is linear."""
        wanted, logarithm = loss, False
        linear = self._linear(sizes[:2], x, logarithm=False)
        if (loss > 0).all():
            of_log = self._linear(sizes[:2], x, logarithm=True)
            if len(of_log) > len(linear):
                linear, wanted, logarithm = of_log, np.log(loss), True
        if not linear:
            return sizes
        if len(linear) == sizes.shape[1]:
            sizes = sizes[:LINEAR_STARTS]
        sizes = sizes.copy()
        sizes[:, linear] = 0.0 if not logarithm else sizes[:, linear]
        found = self._evaluate(sizes, x)
        columns, offset = self._affine(found, linear, logarithm, loss.size)
        if logarithm:
            offset = offset - np.einsum("fkr,fk->fr", columns, sizes[:, linear])
        sizes[:, linear] = _least_squares(columns, wanted - offset, self.signs[linear], wanted)
        return sizes

    def _affine(
        self, found: Dual, linear: Sequence[int], logarithm: bool, n_runs: int
    ) -> tuple[Array, Array]:
        """Derivatives (F, K, R) to some parameters, and the value (F, R), or those of its log."""
        value = np.broadcast_to(found.value, (*found.value.shape[:1], n_runs))
        slopes = [found.slopes.get(self.symbols[k], np.zeros((1, 1))) for k in linear]
        shape = max(len(value), *(len(s) for s in slopes)), n_runs
        columns = np.stack([np.broadcast_to(s, shape) for s in slopes], 1)
        value = np.broadcast_to(value, shape)
        return (columns / value[:, None], np.log(value)) if logarithm else (columns, value)

    def _linear(self, points: Array, x: LogVariables, logarithm: bool) -> list[int]:
        """Parameters in which the formula (or its logarithm) is linear, all of them together."""
        part = {name: logs[..., :64] for name, logs in x.items()}
        n_runs = min(64, max(x[name].shape[-1] for name in self.variables))
        found: list[int] = []
        for k in range(len(self.symbols)):
            moved = points[:1].copy()
            moved[:, [*found, k]] *= 1.7
            here, there = (
                self._affine(self._evaluate(at, part), [*found, k], logarithm, n_runs)[0]
                for at in (points[:1], moved)
            )
            if np.isfinite(here).all() and np.allclose(here, there, rtol=1e-9, atol=0):
                found.append(k)
        return found


def _halton(count: int, dims: int) -> Array:
    """(count, dims) in (0, 1): points that fill a cube evenly (Halton 1960), the same each time."""
    primes = [n for n in range(2, 16 * dims) if all(n % k for k in range(2, n))][:dims]
    found = np.zeros((count, dims))
    for k, base in enumerate(primes):
        index, share = np.arange(1, count + 1), 1.0
        while index.any():
            share /= base
            found[:, k] += share * (index % base)
            index = index // base
    return found


def _in_exponents(tree: ast.expr) -> set[str]:
    """Names that stand in an exponent, or in the argument of a function."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            found |= set(names_of(node.right))
        elif isinstance(node, ast.Call):
            found |= {name for argument in node.args for name in names_of(argument)}
    return found


def _least_squares(columns: Array, target: Array, signs: Array, loss: Array) -> Array:
    """(F, K): coefficients of columns (F, K, R) with the signs they must have."""
    scale = np.maximum(np.abs(loss), np.abs(loss).mean() * FLOOR)
    scaled, wanted = columns / scale, target / scale
    scaled, wanted = np.nan_to_num(scaled, posinf=0, neginf=0), np.nan_to_num(wanted)
    size = np.sqrt((scaled**2).sum(2, keepdims=True)) + 1e-300
    scaled = scaled / size
    normal = scaled @ scaled.transpose(0, 2, 1) + 1e-10 * np.eye(columns.shape[1])
    solved = np.linalg.solve(normal, scaled @ wanted[..., None])[..., 0] / size[..., 0]
    floor = FLOOR * np.abs(loss).mean() / (np.abs(columns).mean(2) + 1e-300)
    return np.where(signs == 0, solved, signs * np.maximum(signs * solved, floor))


def formula_law(
    text: str,
    params: str,
    columns: Mapping[str, str] | None = None,
    target: str = "L",
    own_starts: Starts | None = None,
) -> FormulaLaw:
    """A law from a formula and its parameters; raises ValueError for what is not allowed.

    columns: {name in the formula: column}; of names that are no parameters and not there, the
    usual letters N, D, C, L and U, or the column of that name.
    """
    tree = parse(text, "--formula")
    check_formula(tree, "--formula")
    parameters = parse_parameters(params)
    names = names_of(tree)
    for parameter in parameters:
        if parameter.name not in names:
            raise ValueError(f"--params: the formula has no {parameter.name}")
    if not parameters:
        raise ValueError("--params: no parameter; write those of the formula, as in A>0,alpha>0,E")
    free = [name for name in names if name not in {p.name for p in parameters}]
    if not free:
        raise ValueError(
            "--formula: it has no column; names that --params does not list are columns"
        )
    given = dict(columns or {})
    found = {name: given.get(name, ALIASES.get(name, name)) for name in free}
    return FormulaLaw(text, parameters, found, target, own_starts)
