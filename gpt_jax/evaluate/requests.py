"""Scoring requests and their scores: plain tuples. Must not import jax."""

from typing import NamedTuple


class Request(NamedTuple):
    """Token ids: what is given (one or more), and what is scored after it (one or more)."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Score(NamedTuple):
    """Score of one request's continuation."""

    log_probability: float
    """Nats, summed over the continuation's tokens."""
    greedy: bool
    """Whether each token of the continuation is the likeliest one where it stands."""
    allowed: bool
    """The same, where the scorer's `banned` ids may not come first."""
    n_tokens: int
