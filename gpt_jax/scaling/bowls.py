"""The best learning rate, batch and weight decay against N and D, from grids of runs.

A cell is one (N, D). By bowls: in each cell a quadratic over the logarithms of the hyperparameters,
fitted to the runs near its best; then a power law through the minima. By one surface: all cells at
once, with a floor of their own, one curvature, and minima that lie on the power laws. By near runs:
a power law through all runs that are almost the best of their cell, as Step Law is fitted (arXiv
2503.04715): lr* of N and D, B* of D; weight decay of D / N (2505.13738). Dims: R runs, H
hyperparameters, V variables of a law. Must not import jax.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.uncertainty import LEVELS

VARIABLES = {
    "learning_rate": ("n_params", "n_tokens"),
    "batch_tokens": ("n_tokens",),
    "weight_decay": ("tokens_per_param",),
}
"""{hyperparameter: variables of the power law that its best value follows}"""
WINDOW = 0.02
"""Runs of a cell up to this share above its lowest loss are near its best."""

NEAR = 0.0025
"""Likewise for laws through near runs: the default of Step Law's own code (fit_tool.py)."""


@dataclass(frozen=True)
class Grid:
    """Runs of several cells."""

    hyper: Mapping[str, Array]
    """{hyperparameter: (R)}"""
    n_params: Array
    n_tokens: Array
    loss: Array

    def log_variables(self, names: Sequence[str]) -> Array:
        """(R, V)"""
        known = {"n_params": self.n_params, "n_tokens": self.n_tokens,
                 "tokens_per_param": self.n_tokens / self.n_params}  # fmt: skip
        return np.log(np.stack([known[name] for name in names], 1))

    def take(self, rows: Array) -> "Grid":
        return Grid({k: v[rows] for k, v in self.hyper.items()}, self.n_params[rows],
                    self.n_tokens[rows], self.loss[rows])  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A bowl: its runs near the best, and its minimum."""

    n_params: float
    n_tokens: float
    n_runs: int
    n_used: int
    optimum: dict[str, float]
    loss: float
    problem: str
    """Reason why the cell is left out; empty if it is used"""


@dataclass(frozen=True)
class PowerLaw:
    """optimum = scale * product of variable^exponent, with its intervals."""

    hyper: str
    variables: tuple[str, ...]
    log_scale: float
    exponents: tuple[float, ...]
    errors: tuple[float, ...]
    """Standard errors of the exponents"""
    quantiles: dict[int, float]
    """{level: quantile of Student's t distribution}"""
    log_intervals: dict[int, tuple[float, float]]
    """{level: interval of log_scale}"""

    def intervals(self, index: int) -> dict[int, tuple[float, float]]:
        value, error = self.exponents[index], self.errors[index]
        return {k: (value - t * error, value + t * error) for k, t in self.quantiles.items()}

    def at(self, n_params: float, n_tokens: float) -> float:
        known = {"n_params": n_params, "n_tokens": n_tokens,
                 "tokens_per_param": n_tokens / n_params}  # fmt: skip
        logs = [e * np.log(known[v]) for e, v in zip(self.exponents, self.variables, strict=True)]
        return float(np.exp(self.log_scale + sum(logs)))


def cells_of(grid: Grid) -> list[Array]:
    """Rows of each (N, D), in order of N, then D."""
    keys = np.stack([grid.n_params, grid.n_tokens], 1)
    unique, index = np.unique(keys, axis=0, return_inverse=True)
    return [np.flatnonzero(index.ravel() == k) for k in range(len(unique))]


def fit_cell(cell: Grid, window: float = WINDOW) -> Cell:
    """The bowl of one cell's runs; `problem` where it has no minimum within its grid."""
    names = list(cell.hyper)
    near = cell.loss <= cell.loss.min() * (1 + window)
    logs = np.log(np.stack([cell.hyper[n] for n in names], 1))
    x, y = logs[near], cell.loss[near]
    n, d = float(cell.n_params[0]), float(cell.n_tokens[0])
    columns = 1 + len(names) + len(names) * (len(names) + 1) // 2

    def out(problem: str) -> Cell:
        return Cell(n, d, cell.loss.size, int(near.sum()), {}, float(cell.loss.min()), problem)

    if near.sum() < columns + 1:
        return out(f"{int(near.sum())} runs near its best; a bowl needs {columns + 1}")
    centre = x.mean(0)
    solved, _, rank, _ = np.linalg.lstsq(_design(x - centre), y, rcond=None)
    if rank < columns:
        return out("its runs near the best do not vary every hyperparameter")
    slope, curvature = solved[1 : 1 + len(names)], _matrix(solved[1 + len(names) :], len(names))
    if np.linalg.eigvalsh(curvature).min() <= 0:
        return out("its bowl has no minimum")
    best = -0.5 * np.linalg.solve(curvature, slope)
    loss = float(solved[0] + 0.5 * slope @ best)
    place = best + centre
    for k, name in enumerate(names):
        if not logs[:, k].min() <= place[k] <= logs[:, k].max():
            return out(f"the minimum lies beyond its values of {name}")
    values = {name: float(np.exp(v)) for name, v in zip(names, place, strict=True)}
    return Cell(n, d, cell.loss.size, int(near.sum()), values, loss, "")


def law_through(cells: Sequence[Cell], hyper: str) -> PowerLaw:
    """The power law through minima by least squares; every minimum has the same weight."""

    used = [cell for cell in cells if not cell.problem]
    variables = VARIABLES[hyper]
    grid = Grid({}, np.array([c.n_params for c in used]), np.array([c.n_tokens for c in used]),
                np.zeros(len(used)))  # fmt: skip
    design = np.column_stack([np.ones(len(used)), grid.log_variables(variables)])
    freedom = len(used) - design.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(
            f"{len(used)} cells with a minimum; the law of {hyper} in {', '.join(variables)} needs "
            f"{design.shape[1] + 1} that vary each"
        )
    y = np.log([cell.optimum[hyper] for cell in used])
    solved = np.linalg.lstsq(design, y, rcond=None)[0]
    residual = y - design @ solved
    covariance = np.linalg.inv(design.T @ design) * (residual @ residual) / freedom
    return _law(hyper, solved, np.sqrt(np.diag(covariance)), freedom)


def fit_near(grid: Grid, share: float = NEAR) -> dict[str, PowerLaw]:
    """Power laws by least squares through the runs within a share of their cell's lowest loss.

    Where a grid ends, the runs near the best are cut off, and a lucky run draws a cell's others out
    of the window: simple, and biased where bowls are not. Intervals as those of `fit_surface`.
    """
    cells = cells_of(grid)
    near = [r[grid.loss[r] < grid.loss[r].min() * (1 + share)] for r in cells]
    owner = np.repeat(np.arange(len(cells)), [r.size for r in near])
    runs, laws = grid.take(np.concatenate(near)), {}
    for hyper, values in runs.hyper.items():
        logs = runs.log_variables(VARIABLES[hyper])
        design = np.column_stack([np.ones(owner.size), logs])
        freedom = len(cells) - design.shape[1]
        if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
            raise ValueError(
                f"{len(cells)} cells; the law of {hyper} in {', '.join(VARIABLES[hyper])} needs "
                f"{design.shape[1] + 1} that vary each"
            )
        # About the middle of the variables: the sandwich is of well-sized numbers.
        middle = np.append(0.0, logs.mean(0))
        solved = np.linalg.lstsq(design - middle, np.log(values), rcond=None)[0]
        covariance = _over_cells(
            design - middle, np.log(values) - (design - middle) @ solved, owner
        )
        shift = np.append(1.0, -middle[1:])
        errors = np.sqrt(np.append(shift @ covariance @ shift, np.diag(covariance)[1:]))
        laws[hyper] = _law(hyper, np.append(shift @ solved, solved[1:]), errors, freedom)
    return laws


def fit_surface(grid: Grid, window: float = WINDOW) -> dict[str, PowerLaw]:
    """All laws by one surface: floors of cells, one curvature, minima on the laws.

    Intervals are of a sandwich over cells, with Student's t of cells less the law's parameters.
    """
    from scipy.optimize import least_squares

    cells = cells_of(grid)
    near = np.concatenate([r[grid.loss[r] <= grid.loss[r].min() * (1 + window)] for r in cells])
    owner = np.concatenate([
        np.full((grid.loss[r] <= grid.loss[r].min() * (1 + window)).sum(), k)
        for k, r in enumerate(cells)
    ])  # fmt: skip
    runs, names = grid.take(near), list(grid.hyper)
    logs = np.log(np.stack([runs.hyper[n] for n in names], 1))
    variables = [runs.log_variables(VARIABLES[n]) for n in names]
    centres = [v.mean(0) for v in variables]
    sizes = [1 + v.shape[1] for v in variables]
    count = np.bincount(owner)
    lower = np.tril_indices(len(names))

    def residuals(theta: Array) -> Array:
        distance, at = np.empty_like(logs), 0
        for k, (v, centre, size) in enumerate(zip(variables, centres, sizes, strict=True)):
            part = theta[at : at + size]
            distance[:, k] = logs[:, k] - part[0] - (v - centre) @ part[1:]
            at += size
        root = np.zeros((len(names), len(names)))
        root[lower] = theta[at:]
        bowl = ((distance @ root) ** 2).sum(1)
        rest = np.log(runs.loss) - bowl
        return rest - (np.bincount(owner, rest) / count)[owner]

    start = []
    for k, size in enumerate(sizes):
        start += [float(logs[:, k].mean()), *[0.0] * (size - 1)]
    start += [0.05 * float(i == j) for i, j in zip(*lower, strict=True)]
    found = least_squares(residuals, start, method="lm", max_nfev=4000)
    covariance = _over_cells(found.jac, found.fun, owner)
    laws, at = {}, 0
    for name, centre, size in zip(names, centres, sizes, strict=True):
        part = found.x[at : at + size].copy()
        freedom = max(1, len(cells) - size)
        block = covariance[at : at + size, at : at + size]
        # From the centre of the variables to where they are 1.
        shift = np.append(1.0, -centre)
        part[0] = shift @ found.x[at : at + size]
        errors = np.sqrt(np.append(shift @ block @ shift, np.diag(block)[1:]))
        laws[name] = _law(name, part, errors, freedom)
        at += size
    return laws


def _over_cells(jacobian: Array, residuals: Array, owner: Array) -> Array:
    """(P, P) covariance of the parameters, whatever the errors within a cell have in common.

    Of few cells each pulls the fit towards itself: its residuals r count as (I - H)^(-1/2) r, with
    H its leverage, which makes the sandwich unbiased for equal errors (CR2: Bell and McCaffrey
    2002).
    """
    bread = np.linalg.pinv(jacobian.T @ jacobian)
    scores = []
    for k in range(int(owner.max()) + 1):
        rows = jacobian[owner == k]
        values, axes = np.linalg.eigh(np.eye(len(rows)) - rows @ bread @ rows.T)
        known = values > 1e-9  # a direction in which the cell alone decides has no residual
        turned = (axes.T @ residuals[owner == k])[known] / np.sqrt(values[known])
        scores.append(rows.T @ (axes[:, known] @ turned))
    total = np.stack(scores)
    return bread @ (total.T @ total) @ bread


def _law(hyper: str, solved: Array, errors: Array, freedom: int) -> PowerLaw:
    from scipy.special import stdtrit

    quantiles = {level: float(stdtrit(freedom, 0.5 + level / 200)) for level in LEVELS}
    log_scale = float(solved[0])
    edges = {
        k: (log_scale - t * float(errors[0]), log_scale + t * float(errors[0]))
        for k, t in quantiles.items()
    }
    return PowerLaw(hyper, VARIABLES[hyper], log_scale, tuple(map(float, solved[1:])),
                    tuple(map(float, errors[1:])), quantiles, edges)  # fmt: skip


def _design(x: Array) -> Array:
    """(R, 1 + H + H (H + 1) / 2): constant, slopes, products."""
    i, j = np.triu_indices(x.shape[1])
    return np.column_stack([np.ones(len(x)), x, x[:, i] * x[:, j]])


def _matrix(products: Array, n: int) -> Array:
    """The symmetric matrix of a quadratic form from its products."""
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n)] = products
    return 0.5 * (matrix + matrix.T)
