"""Which keys a query sees, and what becomes of the scores: what all attention kernels compute."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from gpt_jax.models.entry import Change

MASKED = -1e30
"""Score of a key that is not seen: finite, so that differences of two stay defined."""


class Pattern(NamedTuple):
    """Mask and scale of attention scores besides causality, and their dropout; static except for
    `slopes`."""

    window: int | None = None
    slopes: tuple[float, ...] | None = None
    dropout: float = 0.0
    divisor: float | None = None
    """Scores are q k divided by this; none = sqrt(H)."""
    changes: tuple[Change, ...] = ()
    """Changes by entries of `gpt_jax.models.scores` besides penalties by distance, in order."""
    cpu_form: bool = True
    """Whether the CPU's form computes all changes."""

    @property
    def elementwise(self) -> Callable[[jax.Array], jax.Array] | None:
        """The functions of each score, one after another; None without one."""
        functions = [c.elementwise for c in self.changes if c.elementwise is not None]
        if len(functions) < 2:
            return functions[0] if functions else None
        return lambda scores: functools.reduce(lambda s, function: function(s), functions, scores)

    @property
    def reads_total(self) -> bool:
        """Whether a change needs the logarithm of the softmax's denominator."""
        return any(c.output is not None for c in self.changes)

    def changed(self, scores_BNTS: jax.Array, distance_BTS: jax.Array) -> jax.Array:
        """Scores after all changes but penalties and masks."""
        elementwise = self.elementwise
        if elementwise is not None:
            scores_BNTS = elementwise(scores_BNTS)
        for change in self.changes:
            if change.scores is not None:
                scores_BNTS = change.scores(scores_BNTS, distance_BTS)
        return scores_BNTS

    def finished(self, out_BTNH: jax.Array, log_total_BTN: jax.Array) -> jax.Array:
        """The output after all changes."""
        for change in self.changes:
            if change.output is not None:
                out_BTNH = change.output(out_BTNH, log_total_BTN)
        return out_BTNH

    def scale(self, q_BTNH: jax.Array) -> jax.Array:
        """Queries whose products with keys are the scores."""
        return q_BTNH / (self.divisor or math.sqrt(q_BTNH.shape[-1]))
