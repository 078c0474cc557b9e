"""Several trials of one shape advanced together: as one vectorised program, or step by step.

A lane is one trial's state and settings. `VectorLanes` maps the training step over them with
`jax.vmap`, so that a device sees one program with a trial dim in front, which may lie along its own
mesh axis. `TurnLanes` gives each lane its turn with the compiled step of a single run: bit for bit
what `gpt-jax train` computes. Accelerators gain from the first, a CPU mostly from the second, since
XLA's batched products are slower there than single ones: `choose_lanes` measures it.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gpt_jax.config import Config
from gpt_jax.config.meshes import least_devices
from gpt_jax.data.batch import Batch
from gpt_jax.evaluate.validation import Validation, validate_lanes
from gpt_jax.models.gpt import make_gpt
from gpt_jax.parallel.feed import put_batch, put_count
from gpt_jax.parallel.sharding import TRIAL_AXIS, Layout, stack_layout, stacked
from gpt_jax.steps.compiled_steps import program_config, state_shardings
from gpt_jax.steps.program import make_steps
from gpt_jax.steps.step import Metrics, TrainState, evaluation_params, make_settings
from gpt_jax.train.experiment import CorpusData, Experiment

TIMED_CALLS = 4
WORTH = 20.0
"""Vectorising is tried out if what is left takes this many times the compilation of a step: on a
CPU it seldom gains a tenth."""
CLEARLY_FASTER = 0.95


class Lanes(Protocol):
    """K trials that take their steps together."""

    def train(self, batches: Sequence[Batch], n_steps: int, alive: Sequence[int]) -> list[Metrics]:
        """`Steps.train_many` of every lane, on its batches (one Batch: those of all).

        Lanes that are not alive may rest. Returns one Metrics of [lanes, K] arrays, or one of [K]
        arrays for each lane.
        """
        ...

    def state(self, lane: int) -> TrainState:
        """The state of a lane, as a single run has it."""
        ...

    def validate(self, max_sequences: int | None) -> list[Validation]:
        """Validation of each lane."""
        ...


class TurnLanes:
    """Lanes that take turns, each with the compiled step of a single run."""

    def __init__(self, experiments: Sequence[Experiment], states: Sequence[TrainState]):
        self._experiments, self._states = experiments, list(states)
        self._last: list[Metrics | None] = [None] * len(states)

    def train(self, batches: Sequence[Batch], n_steps: int, alive: Sequence[int]) -> list[Metrics]:
        """Handed to the devices one after another, without waiting."""
        placed: dict[tuple[int, Layout], tuple[Batch, jax.Array]] = {}
        for i in alive:
            experiment, which = self._experiments[i], i % len(batches)
            layout = experiment.layout
            if (which, layout) not in placed:
                batch = put_batch(batches[which], layout.batches)
                placed[which, layout] = batch, put_count(n_steps, layout.everywhere)
            self._states[i], self._last[i] = experiment.steps.train(
                self._states[i], *placed[which, layout], experiment.settings
            )
        return [metrics for metrics in self._last if metrics is not None]

    def state(self, lane: int) -> TrainState:
        return self._states[lane]

    def validate(self, max_sequences: int | None) -> list[Validation]:
        return [
            experiment.validate(experiment.whole(state), max_sequences)
            for experiment, state in zip(self._experiments, self._states, strict=True)
        ]


class VectorLanes:
    """Lanes in one program, mapped over the trial dim."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        states: Sequence[TrainState],
        devices: Sequence[jax.Device],
    ):
        self._experiment, data = experiments[0], experiments[0].data
        assert isinstance(data, CorpusData), "packs are pretraining"
        self._splits = data.validation_split, data.other_splits(experiments[0].config)
        config, solo = experiments[0].config, experiments[0].layout
        n_parts = trial_parts(len(experiments), len(devices), solo.mesh.size)
        self._layout = stack_layout(solo, devices[: n_parts * solo.mesh.size], n_parts)
        self._program = _vector_program(program_config(config), self._layout)
        settings = [make_settings(e.config, e.timetable) for e in experiments]
        everywhere = stacked(self._layout.everywhere)
        self._settings = jax.tree.map(
            lambda *x: jax.device_put(jnp.stack(x), everywhere), *settings
        )
        self._state = _stack(states, self._program.shardings)

    def train(self, batches: Sequence[Batch], n_steps: int, alive: Sequence[int]) -> list[Metrics]:
        """All lanes: one that went wrong goes on computing what nobody reads."""
        if len(batches) == 1:
            batch = jax.device_put(batches[0], self._layout.batches)
            train = self._program.train_shared
        else:
            together = jax.tree.map(lambda *rows: np.stack(rows), *batches)
            batch = jax.device_put(together, stacked(self._layout.batches))
            train = self._program.train_own
        count = put_count(n_steps, self._layout.everywhere)
        self._state, metrics = train(self._state, batch, count, self._settings)
        return [metrics]

    def state(self, lane: int) -> TrainState:
        """A copy, on the devices of a single run: its checkpoints are any run's."""
        shardings = jax.tree.map(lambda x: x.sharding, self._experiment.steps.abstract_state)
        return jax.device_put(jax.tree.map(lambda x: x[lane], self._state), shardings)

    def validate(self, max_sequences: int | None) -> list[Validation]:
        return validate_lanes(
            self._experiment.config,
            self._program.evaluate,
            evaluation_params(self._state),
            *self._splits,
            self._layout,
            max_sequences,
        )


@dataclasses.dataclass(frozen=True)
class _VectorProgram:
    """Compiled functions of stacked states."""

    train_shared: Any
    """All lanes on the same batches."""
    train_own: Any
    """Each lane on its own batches, for lanes of different seeds."""
    evaluate: Any
    shardings: Any
    """Shardings of a stacked TrainState."""


@functools.lru_cache(maxsize=4)
def _vector_program(program: Config, layout: Layout) -> _VectorProgram:
    """Shared by all packs of one shape in this process."""
    model = make_gpt(program.model, program.compute, layout)
    steps = make_steps(program, model)
    shardings = jax.tree.map(stacked, state_shardings(steps, layout))
    everywhere = stacked(layout.everywhere)

    def compiled(batch_dim: int | None) -> Any:
        batches = layout.batches if batch_dim is None else stacked(layout.batches)
        in_dims = (0, batch_dim, None, 0)
        return jax.jit(
            jax.vmap(steps.train_many, in_axes=in_dims, spmd_axis_name=TRIAL_AXIS),
            in_shardings=(shardings, batches, layout.everywhere, everywhere),
            out_shardings=(shardings, everywhere),
            donate_argnums=0,
            compiler_options=dict(steps.model.execution.compiler_options),
        )

    evaluate = jax.jit(
        jax.vmap(steps.evaluate, in_axes=(0, None), spmd_axis_name=TRIAL_AXIS),
        in_shardings=(shardings.params, layout.batch),
        out_shardings=everywhere,
    )
    return _VectorProgram(compiled(None), compiled(0), evaluate, shardings)


def trial_parts(n_lanes: int, n_devices: int, devices_per_trial: int) -> int:
    """Parts of the trial axis: the most that divide the lanes and find devices."""
    most = max(1, n_devices // devices_per_trial)
    return max(n for n in range(1, most + 1) if n_lanes % n == 0)


def is_vectorised(config: Config, n_devices: int) -> bool:
    """Whether `VectorLanes` can train a config. Not a mixture of experts on several devices: jax
    (0.10) maps no `shard_map` whose body calls jitted functions over an axis of the mesh."""
    return config.model.n_experts is None or n_devices == 1


def device_groups(config: Config, devices: Sequence[jax.Device]) -> list[Sequence[jax.Device]]:
    """The devices on which single trials are prepared: those of the first trial where all are
    vectorised from there, else as many groups as there are, which trials share out."""
    span = least_devices(config.mesh)
    n_groups = 1 if is_vectorised(config, len(devices)) else max(1, len(devices) // span)
    return [devices[i * span : (i + 1) * span] for i in range(n_groups)]


def _stack(states: Sequence[TrainState], shardings: Any) -> TrainState:
    stacked_state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *jax.device_get(states))
    return jax.device_put(stacked_state, shardings)


def choose_lanes(
    experiments: Sequence[Experiment],
    states: Sequence[TrainState],
    devices: Sequence[jax.Device],
    batches: Sequence[Batch],
    n_steps_left: int,
) -> tuple[Lanes, str]:
    """The faster kind of lanes for these trials on these devices, and why.

    Accelerators vectorise. On a CPU a few steps are timed both ways, on copies of the states, but
    only where what is left to do is long enough to win back the second compilation.
    """
    if len(experiments) == 1:
        return TurnLanes(experiments, states), "one trial"
    if not is_vectorised(experiments[0].config, len(devices)):
        return TurnLanes(experiments, states), "in turns: experts on several devices"
    if devices[0].platform != "cpu" or len(devices) > experiments[0].layout.mesh.size:
        return VectorLanes(experiments, states, devices), "vectorised over the devices"
    n_steps, alive = experiments[0].steps_per_dispatch, range(len(states))
    compiling, turns = _time(TurnLanes(experiments, _copies(states)), batches, n_steps, alive)
    if turns * n_steps_left < WORTH * compiling:
        return TurnLanes(experiments, states), "in turns: too short to try vectorising"
    _, vector = _time(VectorLanes(experiments, states, devices), batches, n_steps, alive)
    measured = f"a step of all: {turns * 1e3:.1f} ms in turns, {vector * 1e3:.1f} ms vectorised"
    if vector < CLEARLY_FASTER * turns:
        return VectorLanes(experiments, states, devices), f"vectorised ({measured})"
    return TurnLanes(experiments, states), f"in turns ({measured})"


def _copies(states: Sequence[TrainState]) -> list[TrainState]:
    """The step takes its state's buffers; these may be taken."""
    return [jax.tree.map(jnp.copy, state) for state in states]


def _time(
    lanes: Lanes, batches: Sequence[Batch], n_steps: int, alive: Sequence[int]
) -> tuple[float, float]:
    """Seconds of the first call of n_steps, and a step's of the fastest later one."""
    seconds = []
    for _ in range(1 + TIMED_CALLS):
        began = time.perf_counter()
        jax.block_until_ready(lanes.train(batches, n_steps, alive))
        seconds.append(time.perf_counter() - began)
    return seconds[0], min(seconds[1:]) / n_steps
