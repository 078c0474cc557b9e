"""Lanes: the runs that one loop advances together, a state and settings each.

A single run is one lane. `TurnLanes` gives each lane its turn with the compiled step of a single
run; a packed sweep may map one program over all instead (`gpt_jax.sweep.lanes`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax

from gpt_jax.data.batch import Batch
from gpt_jax.evaluate.validation import Validation
from gpt_jax.parallel.feed import put_batch, put_count
from gpt_jax.parallel.sharding import Layout
from gpt_jax.runs.tracking import Record
from gpt_jax.steps.step import Metrics, TrainState
from gpt_jax.train.experiment import Experiment
from gpt_jax.train.judge import Judge
from gpt_jax.train.recorder import RunRecorder

Columns = dict[str, list[float]]
"""A value for each step, by the names of `Metrics`."""


@dataclasses.dataclass
class Lane:
    """One run of a loop: what it is, its records, and what becomes of it."""

    experiment: Experiment
    recorder: RunRecorder
    judge: Judge | None = None
    """May stop the run before its end."""
    ended: bool = False
    """Whether it takes no more steps and is to be finished: task.patience has run out."""
    error: Exception | None = None
    """The error that ended it: `Diverged` or `StoppedEarly`."""
    result: Record | None = None
    """Content of result.json, once it is finished."""

    @property
    def running(self) -> bool:
        """Whether it takes part in the next steps."""
        return self.error is None and not self.ended


class Lanes(Protocol):
    """The states of K lanes on the devices."""

    def place(self, batches: Sequence[Batch], n_steps: int, n_rows: int) -> Any:
        """Batches of the next steps on the devices, as `train` takes them.

        batches: [K, B, T] arrays for each lane, or one for all lanes. n_steps: how many of the K
        are filled. n_rows: sequences of a global batch.
        """

    def train(self, placed: Any, running: Sequence[int]) -> Any:
        """Hand the steps of all lanes, or of those that are running, to the devices; returns
        metrics that `read` reads."""

    def read(self, metrics: Any) -> dict[int, Columns]:
        """The metrics of each lane, once they are there."""

    def state(self, lane: int) -> TrainState:
        """The state of a lane, as a single run has it."""

    def validate(self, running: Sequence[int], max_sequences: int | None) -> dict[int, Validation]:
        """The validation of each running lane."""


class TurnLanes:
    """Lanes that take turns, each with the compiled step of a single run."""

    def __init__(self, experiments: Sequence[Experiment], states: Sequence[TrainState]):
        self._experiments, self._states = experiments, list(states)

    def place(
        self, batches: Sequence[Batch], n_steps: int, n_rows: int
    ) -> list[tuple[Batch, jax.Array]]:
        """(batches, number of steps) of each lane; lanes of one layout share them."""
        placed: dict[tuple[int, Layout], tuple[Batch, jax.Array]] = {}
        each = [(i % len(batches), e.layout) for i, e in enumerate(self._experiments)]
        for which, layout in each:
            if (which, layout) not in placed:
                batch = put_batch(batches[which], layout.batches, n_rows)
                placed[which, layout] = batch, put_count(n_steps, layout.everywhere)
        return [placed[key] for key in each]

    def train(
        self, placed: list[tuple[Batch, jax.Array]], running: Sequence[int]
    ) -> dict[int, Metrics]:
        """Handed to the devices one after another, without waiting."""
        found = {}
        for i in running:
            experiment = self._experiments[i]
            self._states[i], found[i] = experiment.steps.train(
                self._states[i], *placed[i], experiment.settings
            )
        return found

    def read(self, metrics: dict[int, Metrics]) -> dict[int, Columns]:
        """Each lane's."""
        return {lane: as_columns(found) for lane, found in jax.device_get(metrics).items()}

    def state(self, lane: int) -> TrainState:
        """The state itself."""
        return self._states[lane]

    def validate(self, running: Sequence[int], max_sequences: int | None) -> dict[int, Validation]:
        """One after another."""
        found = {}
        for i in running:
            experiment = self._experiments[i]
            found[i] = experiment.validate(experiment.whole(self._states[i]), max_sequences)
        return found


def as_columns(metrics: Metrics) -> Columns:
    """Metrics of [K] arrays on the host as lists."""
    return {name: column.tolist() for name, column in metrics.columns().items()}
