"""A law with parameters fixed, tied, bounded, or shared between groups of runs.

A constrained law is a law again: its free parameters are the logarithms of the printed ones (or
these themselves, where their sign is free), one for all that are tied or shared, none for what is
fixed. So the solver, the profile and the bootstrap see nothing of the constraints, and every point
that they try keeps them exactly. Dims: F fits, R runs, P free parameters, S printed ones of the
unconstrained law, G groups.

Must not import jax.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpt_jax.hints import did_you_mean
from gpt_jax.scaling.laws import Array, Law, LogVariables, TwoTerms, to_logs

GROUP = "group"
"""The index of a row's group among the logarithms of its variables."""
NO_SIZE = -700.0
"""The logarithm that stands for none: the smallest whose exponential is not zero."""
COMPLEX_STEP = 1e-30


@dataclass(frozen=True)
class Constraints:
    """Constraints on a law's printed parameters; without any they are as the law has them.

    With groups, `alpha` means that of every group, and `alpha[c4]` that of one.
    """

    fixed: Mapping[str, float] = field(default_factory=dict)
    tied: Sequence[tuple[str, ...]] = ()
    """Sets of parameters that are equal."""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    group: str | None = None
    """Column whose values are the groups: a parameter of its own for each, but for `shared`."""
    shared: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.fixed or self.tied or self.bounds or self.group is not None)

    @property
    def symbols(self) -> set[str]:
        """Parameters that are mentioned, without their group."""
        named = [*self.fixed, *(s for names in self.tied for s in names), *self.bounds]
        return {name.partition("[")[0] for name in [*named, *self.shared]}


FREE = Constraints()


@dataclass(frozen=True)
class Constrained:
    """A law under constraints.

    theta: `log_symbols` of the parameters that are left, in the order in which they come.
    """

    base: Law
    names: tuple[tuple[str, ...], ...]
    """(G) names of the S parameters"""
    index: Array
    """(G, S): which free parameter it is; -1: fixed"""
    fixed: Array
    """(G, S): log_symbols of what is fixed; 0 elsewhere"""
    given: Array
    """(G, S): the same as it was given"""
    bounds: Array
    """(P, 2)"""
    groups: tuple[str, ...] = ()
    """(G) labels; none without groups"""

    @property
    def formula(self) -> str:
        return self.base.formula

    @property
    def variables(self) -> tuple[str, ...]:
        return self.base.variables

    @property
    def slots(self) -> dict[str, tuple[int, int]]:
        """{name of a printed parameter: its place in index}, each name once, fixed ones too."""
        found: dict[str, tuple[int, int]] = {}
        for g, names in enumerate(self.names):
            for s, name in enumerate(names):
                found.setdefault(name, (g, s))
        return found

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the parameters that are fitted; tied ones are several of one value."""
        return tuple(name for name, slot in self.slots.items() if self.index[slot] >= 0)

    @property
    def fixed_symbols(self) -> dict[str, float]:
        """{name: value as given}"""
        return {
            name: float(self.given[slot])
            for name, slot in self.slots.items()
            if self.index[slot] < 0
        }

    @property
    def signs(self) -> Array:
        return np.array([self.base.signs[self.slots[name][1]] for name in self.symbols])

    def log_symbols(self, theta: Array) -> Array:
        return theta[:, [self.index[self.slots[name]] for name in self.symbols]]

    def from_log_symbols(self, logs: Array) -> Array:
        theta = np.empty((len(logs), len(self.bounds)), logs.dtype)
        for k, name in enumerate(self.symbols):
            theta[:, self.index[self.slots[name]]] = logs[:, k]
        return theta

    def symbol_range(self) -> Array:
        return self.bounds[[self.index[self.slots[name]] for name in self.symbols]]

    def from_symbols(self, values: Mapping[str, float]) -> Array:
        given = np.array([values[symbol] for symbol in self.symbols])
        return self.from_log_symbols(to_logs(given, self.signs)[None])[0]

    def base_theta(self, theta: Array, group: int = 0) -> Array:
        """theta (F, P) -> the unconstrained law's (F, S) for one group."""
        index = self.index[group]
        return self.base.from_log_symbols(
            np.where(index >= 0, theta[:, np.maximum(index, 0)], self.fixed[group])
        )

    def two_terms(self, theta: Array) -> TwoTerms | None:
        return self.base.two_terms(self.base_theta(theta))

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        return self._evaluate(theta, x, logarithm=True)

    def values(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        return self._evaluate(theta, x, logarithm=False)

    def _evaluate(self, theta: Array, x: LogVariables, logarithm: bool) -> tuple[Array, Array]:
        compute = self.base.log_loss if logarithm else self.base.values
        if len(self.index) == 1:
            found, gradient = compute(self.base_theta(theta), x)
            return found, self._chain(theta, 0) @ gradient
        group = x[GROUP].astype(int)
        result = np.full((len(theta), group.size), np.nan)
        slopes = np.zeros((len(theta), theta.shape[1], group.size))
        for g in range(len(self.index)):
            rows = group == g
            if rows.any():
                part = {name: x[name][..., rows] for name in self.variables}
                found, gradient = compute(self.base_theta(theta, g), part)
                result[:, rows] = found
                slopes[:, :, rows] = self._chain(theta, g) @ gradient
        return result, slopes

    def _chain(self, theta: Array, group: int) -> Array:
        """(F, P, S): derivatives of base_theta to theta, exact by complex steps."""
        found = np.empty((*theta.shape, self.index.shape[1]))
        for p in range(theta.shape[1]):
            step = theta.astype(complex)
            step[:, p] += COMPLEX_STEP * 1j
            found[:, p] = self.base_theta(step, group).imag / COMPLEX_STEP
        return found

    def starts(self, x: LogVariables, loss: Array) -> Array:
        """Starts of the unconstrained law for each group; the mean of what is tied or shared."""
        low, high = self.bounds.T
        total, count = np.zeros((1, low.size)), np.zeros(low.size)
        for g in range(len(self.index)):
            rows = x[GROUP] == g if self.groups else np.ones(loss.size, bool)
            part = {name: x[name][rows] for name in self.variables}
            logs = self.base.log_symbols(self.base.starts(part, loss[rows]))
            total = np.broadcast_to(total, (len(logs), low.size)).copy()
            for s, p in enumerate(self.index[g]):
                if p >= 0:
                    total[:, p] += logs[:, s]
                    count[p] += 1
        return np.clip(total / count, low, high)


def log_variables(law: Law, runs_by_name: Mapping[str, Array]) -> dict[str, Array]:
    """{variable: natural logarithm (R)} of a law's columns."""
    with np.errstate(divide="ignore"):  # none of something is e^-infinity
        return {name: np.log(runs_by_name[name]) for name in law.variables}


def plain(law: Law, theta: Array, group: int = 0) -> tuple[Law, Array]:
    """The unconstrained law and its theta (F, S), of one group; any other law as it is."""
    if isinstance(law, Constrained):
        return law.base, law.base_theta(theta, group)
    return law, theta


def groups_of(law: Law) -> tuple[str, ...]:
    """Labels of the groups that a law has parameters for; none without groups."""
    return law.groups if isinstance(law, Constrained) else ()


def fixed_symbols(law: Law) -> dict[str, float]:
    """{name: value} of the parameters that are held."""
    return law.fixed_symbols if isinstance(law, Constrained) else {}


def constrain(law: Law, constraints: Constraints, groups: Sequence[str] = ()) -> Law:
    """The law under constraints; itself without any.

    groups: the values of the column `group`. Raises ValueError naming a parameter that the law
    does not have, a value or bound of the wrong sign, or bounds that nothing satisfies.
    """
    if not constraints:
        return law
    layout = _Layout(law, constraints, tuple(groups))
    for name, value in constraints.fixed.items():
        layout.fix(name, value)
    for names in constraints.tied:
        layout.tie(names)
    for name, edges in constraints.bounds.items():
        layout.bound(name, *edges)
    return layout.law()


class _Layout:
    """The slots of a constrained law while its constraints are read one by one."""

    def __init__(self, law: Law, constraints: Constraints, groups: tuple[str, ...]) -> None:
        self.base, self.groups = law, groups
        for name in constraints.shared:
            if name not in law.symbols:
                raise ValueError(f"--shared {name}: {_allowed(name, law.symbols)}")
        own = [s not in constraints.shared for s in law.symbols]
        self.names = tuple(
            tuple(f"{s}[{g}]" if o else s for s, o in zip(law.symbols, own, strict=True))
            for g in groups
        ) or (law.symbols,)
        shape = (len(self.names), len(law.symbols))
        self.slot = np.arange(shape[0] * shape[1]).reshape(shape)
        if groups:
            self.slot[:, ~np.array(own)] = self.slot[0, ~np.array(own)]
        self.fixed, self.given = np.zeros(shape), np.zeros(shape)
        self.held = np.zeros(shape, bool)
        self.range = np.tile(law.symbol_range(), (shape[0], 1, 1))

    def fix(self, name: str, value: float) -> None:
        for place in self._places(name, f"--fix {name}"):
            self.fixed[place] = self._log(name, value, place, f"--fix {name}={value:g}")
            self.given[place], self.held[place] = value, True

    def tie(self, names: tuple[str, ...]) -> None:
        given = f"--tie {'='.join(names)}"
        sets = [self._places(name, given) for name in names]
        if len(sets) < 2:
            raise ValueError(f"{given}: names of at least two parameters, as in --tie alpha=beta")
        for k, place in enumerate(sets[0]):
            for others, name in zip(sets[1:], names[1:], strict=True):
                if len(others) != len(sets[0]):
                    raise ValueError(f"{given}: one is shared between groups, the other is not")
                self._join(place, others[k], given, name)

    def _join(self, one: tuple[int, int], other: tuple[int, int], given: str, name: str) -> None:
        signs = self.base.signs
        if signs[one[1]] != signs[other[1]]:
            raise ValueError(f"{given}: the law gives {name} another sign")
        held = [place for place in (one, other) if self.held[place]]
        first, second = self.slot[one], self.slot[other]
        both = (self.slot == first) | (self.slot == second)
        self.slot[both] = first
        if len(held) == 2 and self.fixed[one] != self.fixed[other]:
            raise ValueError(f"{given}: both are fixed, at different values")
        if held:
            self.fixed[both], self.given[both] = self.fixed[held[0]], self.given[held[0]]
            self.held[both] = True

    def bound(self, name: str, low: float, high: float) -> None:
        given = f"--bounds {name}={low:g}:{high:g}"
        if not low < high:
            raise ValueError(f"{given}; allowed: LOW:HIGH with LOW below HIGH")
        for place in self._places(name, given):
            sign = self.base.signs[place[1]]
            edges = (low, high) if sign >= 0 else (high, low)
            if not sign:
                logs = list(edges)
            else:  # an open side is the law's own
                logs = [
                    own if np.isinf(v) else self._log(name, v, place, given)
                    for v, own in zip(edges, self.range[place], strict=True)
                ]
            own = self.range[place]
            self.range[place] = [max(logs[0], own[0]), min(logs[1], own[1])]
            if not self.range[place][0] < self.range[place][1]:
                raise ValueError(f"{given}: outside of what the law allows for {name}")

    def law(self) -> Constrained:
        free = [
            slot for slot in dict.fromkeys(self.slot.ravel().tolist()) if not self._is_held(slot)
        ]
        if not free:
            raise ValueError("every parameter is fixed: nothing is left to fit")
        number = {slot: p for p, slot in enumerate(free)}
        index = np.array([[number.get(slot, -1) for slot in row] for row in self.slot.tolist()])
        bounds = np.stack(
            [
                [self.range[index == p, 0].max(), self.range[index == p, 1].min()]
                for p in range(len(free))
            ]
        )
        if (bounds[:, 0] >= bounds[:, 1]).any():
            raise ValueError("--bounds: the bounds of tied parameters have nothing in common")
        held = np.where(index < 0, self.fixed, 0.0)
        return Constrained(self.base, self.names, index, held, self.given, bounds, self.groups)

    def _is_held(self, slot: int) -> bool:
        return bool(self.held[self.slot == slot].any())

    def _places(self, name: str, given: str) -> list[tuple[int, int]]:
        """Where a parameter stands: once, or once for each group."""
        found = [
            (g, s)
            for g, names in enumerate(self.names)
            for s, one in enumerate(names)
            if name in (one, self.base.symbols[s])
        ]
        if not found:
            known = dict.fromkeys([*self.base.symbols, *(n for row in self.names for n in row)])
            raise ValueError(f"{given}: {_allowed(name, tuple(known))}")
        return found

    def _log(self, name: str, value: float, place: tuple[int, int], given: str) -> float:
        """A printed value as `log_symbols` has it."""
        sign = self.base.signs[place[1]]
        if not np.isfinite(value):
            raise ValueError(f"{given}: not a number")
        if sign == 0:
            return float(value)
        if value == 0:
            return NO_SIZE
        if sign * value < 0:
            raise ValueError(f"{given}: {name} is {'above' if sign > 0 else 'below'} 0 in this law")
        return float(np.log(sign * value))


def _allowed(name: str, known: Sequence[str]) -> str:
    return f"the law has the parameters {', '.join(known)}{did_you_mean(name, known)}"
