"""Two loss curves over one cost (compute, tokens or seconds), fitted together.

loss = E + a / x^b for each of two ladders, A and B. What the two share is a choice of the law:
nothing, the irreducible loss E, its exponent b as well, or everything. Dims: F fits, R runs,
P free parameters.

Must not import jax.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.laws import (
    LOG_COEFFICIENT_RANGE,
    LOG_IRREDUCIBLE_RANGE,
    Array,
    LogVariables,
    PositiveLaw,
    grid,
    log_sum,
    solve_positive,
)

SLOTS = ("a_A", "b_A", "a_B", "b_B", "E_A", "E_B")
"""Parameters of two curves that share nothing."""
SHARED = {
    "one curve": (0, 1, 0, 1, 2, 2),
    "one multiplier": (0, 1, 2, 1, 3, 3),
    "one floor": (0, 1, 2, 3, 4, 4),
    "own floors": (0, 1, 2, 3, 4, 5),
}
"""{what the curves share: which free parameter stands in each slot}. Each contains the one before:
`one multiplier` has the same exponent and floor, so B is as many times better everywhere."""
EXPONENTS = (1e-3, 5.0)
START_EXPONENTS = 8
NOTHING = 1e-12
"""Nats above the irreducible loss that count as none."""


@dataclass(frozen=True)
class PairLaw(PositiveLaw):
    """Two power laws with an irreducible loss. `x["ladder"]` is 0 for a run of A and 1 for B.

    theta: one value for each free parameter: log of a term at the centre, exponent, log of E.
    """

    shared: str
    center: float
    """Centre of log x: the mean over the runs of both ladders."""

    @property
    def slots(self) -> tuple[int, ...]:
        return SHARED[self.shared]

    @property
    def formula(self) -> str:
        return "L = E + a/x^b for each ladder"

    @property
    def variables(self) -> tuple[str, ...]:
        return ("x", "ladder")

    @property
    def symbols(self) -> tuple[str, ...]:
        first = {place: name for name, place in reversed(list(zip(SLOTS, self.slots, strict=True)))}
        return tuple(first[place] for place in range(max(self.slots) + 1))

    @property
    def bounds(self) -> Array:
        kinds = {"a": LOG_COEFFICIENT_RANGE, "b": EXPONENTS, "E": LOG_IRREDUCIBLE_RANGE}
        return np.array([kinds[symbol[0]] for symbol in self.symbols])

    def log_loss(self, theta: Array, x: LogVariables) -> tuple[Array, Array]:
        offset, second = x["x"] - self.center, x["ladder"] > 0.5
        full = theta[:, self.slots]
        log_a = np.where(second, full[:, 2, None], full[:, 0, None])
        exponent = np.where(second, full[:, 3, None], full[:, 1, None])
        floor = np.where(second, full[:, 5, None], full[:, 4, None])
        total, (share, share_floor) = log_sum([log_a - exponent * offset, floor])
        gradient = np.zeros((len(theta), theta.shape[1], total.shape[1]))
        for slot, place in enumerate(self.slots):
            mine = second == (slot in (2, 3, 5))
            by_kind = {0: share, 1: -share * offset, 2: share_floor}
            gradient[:, place] += mine * by_kind[2 if slot > 3 else slot % 2]
        return total, gradient

    def starts(self, x: LogVariables, loss: Array) -> Array:
        offset, second = x["x"] - self.center, x["ladder"] > 0.5
        values = grid(np.geomspace(0.02, 1.5, START_EXPONENTS), 2)
        parts = []
        for k, mine in enumerate((~second, second)):
            decay = np.exp(-values[:, k, None] * offset[mine])
            columns = np.stack([decay, np.ones_like(decay)], 1)
            parts.append(np.log(solve_positive(columns, loss[mine])))
        (a, e_a), (b, e_b) = (part.T for part in parts)
        full = np.stack([a, values[:, 0], b, values[:, 1], e_a, e_b], 1)
        places = np.array(self.slots)
        found = [full[:, places == place].mean(1) for place in range(places.max() + 1)]
        return np.stack(found, 1)

    @property
    def signs(self) -> Array:
        return np.ones(len(self.symbols))

    def log_symbols(self, theta: Array) -> Array:
        full = theta[:, self.slots]
        logs = full.copy()
        for a, b in ((0, 1), (2, 3)):
            logs[:, a] = full[:, a] + full[:, b] * self.center
            logs[:, b] = np.log(full[:, b])
        return logs[:, [self.slots.index(place) for place in range(theta.shape[1])]]

    def from_log_symbols(self, logs: Array) -> Array:
        theta = logs.copy()
        for place, symbol in enumerate(self.symbols):
            if symbol[0] == "b":
                theta[:, place] = np.exp(logs[:, place])
        for place, symbol in enumerate(self.symbols):
            if symbol[0] == "a":
                exponent = theta[:, self.slots[SLOTS.index("b" + symbol[1:])]]
                theta[:, place] = logs[:, place] - exponent * self.center
        return theta

    def from_symbols(self, values: Mapping[str, float]) -> Array:
        logs = np.log([values[symbol] for symbol in self.symbols])
        return self.from_log_symbols(logs[None])[0]

    def curve(self, theta: Array, which: int, log_x: Array) -> Array:
        """theta (F, P) -> log loss (F, K) of A (0) or B (1) at log x (K)."""
        x = {"x": log_x, "ladder": np.full(log_x.shape, float(which))}
        return self.log_loss(theta, x)[0]

    def log_cost(self, theta: Array, which: int, log_loss: Array) -> Array:
        """theta (F, P) -> log x (F, K) at which A (0) or B (1) has a log loss (F, K) or (K).

        Far beyond any x where the loss is at or below the irreducible one (`reaches`).
        """
        full = theta[:, self.slots]
        log_a, exponent = full[:, 2 * which, None], full[:, 2 * which + 1, None]
        above = np.exp(log_loss) - np.exp(full[:, 4 + which, None])
        return self.center + (log_a - np.log(np.maximum(above, NOTHING))) / exponent

    def reaches(self, theta: Array, log_loss: float) -> bool:
        """Whether both curves of theta (P) come below a log loss."""
        return bool(theta[[self.slots[4], self.slots[5]]].max() < log_loss)

    def log_multiplier(self, theta: Array, log_x: Array) -> Array:
        """theta (F, P) -> log of how many times its x (K) A needs for B's loss there, (F, K)."""
        if self.slots[4] != self.slots[5]:
            return self.log_cost(theta, 0, self.curve(theta, 1, log_x)) - log_x
        a, b = (theta[:, self.slots[k : k + 2]] for k in (0, 2))
        term = b[:, :1] - b[:, 1:] * (log_x - self.center)
        return self.center + (a[:, :1] - term) / a[:, 1:] - log_x

    def log_multiplier_at(self, theta: Array, loss: float) -> Array:
        """theta (F, P) -> log of x of A over x of B at a loss, (F)."""
        log_loss = np.full((1, 1), np.log(loss))
        return (self.log_cost(theta, 0, log_loss) - self.log_cost(theta, 1, log_loss))[:, 0]
