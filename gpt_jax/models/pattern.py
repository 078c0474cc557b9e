"""Which keys a query sees, and what becomes of the scores: what all attention kernels compute.

Dims: B batch, T query position, S key position, N query heads, K key/value heads, H head size.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

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


def mask_bias(
    query_positions_BT: jax.Array,
    key_positions_BS: jax.Array,
    query_segments_BT: jax.Array | None,
    key_segments_BS: jax.Array | None,
    pattern: Pattern,
) -> jax.Array:
    """Bias added to the attention scores, [B or 1, N or 1, T, S]: 0 or ALiBi's penalty where the
    query may attend to the key, else MASKED."""
    distance_BTS = distance_of(query_positions_BT, key_positions_BS)
    seen_BTS = distance_BTS >= 0
    if pattern.window is not None:
        seen_BTS &= distance_BTS < pattern.window
    if query_segments_BT is not None and key_segments_BS is not None:
        seen_BTS &= query_segments_BT[:, :, None] == key_segments_BS[:, None, :]
    penalty = jnp.zeros(())
    if pattern.slopes is not None:
        slopes_N11 = jnp.asarray(pattern.slopes, jnp.float32)[:, None, None]
        penalty = -slopes_N11 * distance_BTS[:, None]
    return jnp.where(seen_BTS[:, None], penalty, MASKED)


def distance_of(query_positions_BT: jax.Array, key_positions_BS: jax.Array) -> jax.Array:
    """Tokens from a key to a query, [B or 1, T, S]: below 0 where the key comes later."""
    return query_positions_BT[:, :, None] - key_positions_BS[:, None, :]


def log_total(scores_BNTS: jax.Array) -> jax.Array:
    """Logarithm of the softmax's denominator, [B, T, N]."""
    return jax.nn.logsumexp(scores_BNTS, axis=-1).swapaxes(1, 2)
