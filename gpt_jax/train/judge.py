"""Judge of a run's losses so far, which may end it before its last step. Must not import jax."""

from typing import Protocol

from gpt_jax.runs.history import History


class StoppedEarly(Exception):
    """The judge of a run saw no use in the rest of it: the state is saved."""


class Judge(Protocol):
    """Decides along the way whether a run goes on."""

    def due(self, done: int) -> bool:
        """Whether to decide after `done` steps, between two calls of the compiled step."""

    def verdict(self, done: int, history: History) -> str:
        """The reason to stop after `done` steps; empty to go on."""
