"""Lanes of a pack: several trials of one shape as one vectorised program, or in turns.

`VectorLanes` maps the training step over the trials with `jax.vmap`, so that a device sees one
program with a trial dim in front, which may be sharded along its own mesh axis. `TurnLanes`
(`gpt_jax.train.lanes`) gives each trial its turn with the compiled step of a single run: bit for
bit what `gpt-jax train` computes. Accelerators gain from the first, a CPU mostly from the second,
since XLA's batched matmuls are slower there than single ones: `choose_lanes` measures it.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt_jax.config import Config
from gpt_jax.config.mesh_sizes import least_devices
from gpt_jax.data.batch import Batch
from gpt_jax.evaluate.validation import Validation, validate_lanes
from gpt_jax.models.gpt import make_gpt
from gpt_jax.parallel.feed import put_count
from gpt_jax.parallel.sharding import TRIAL_AXIS, Layout, stack_layout, stacked
from gpt_jax.steps.compiled_steps import program_config, state_shardings
from gpt_jax.steps.program import make_steps
from gpt_jax.steps.step import Metrics, TrainState, evaluation_params, make_settings
from gpt_jax.train.experiment import CorpusData, Experiment
from gpt_jax.train.lanes import Columns, Lanes, TurnLanes, as_columns

TIMED_CALLS = 4
WORTH = 20.0
"""Vectorising is tried out if what is left takes this many times the compilation of a step: on a
CPU it seldom gains a tenth."""
CLEARLY_FASTER = 0.95


class _Placed(NamedTuple):
    """Batches of some steps on the devices."""

    batch: Batch
    """[K, B, T] arrays for all lanes, or [lanes, K, B, T]."""
    n_steps: jax.Array
    """How many of the K are filled."""
    shared: bool


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

    def place(self, batches: Sequence[Batch], n_steps: int, n_rows: int) -> _Placed:
        """The batches of all lanes, or one for all, and the number of steps."""
        count = put_count(n_steps, self._layout.everywhere)
        if len(batches) == 1:
            return _Placed(jax.device_put(batches[0], self._layout.batches), count, True)
        together = jax.tree.map(lambda *rows: np.stack(rows), *batches)
        return _Placed(jax.device_put(together, stacked(self._layout.batches)), count, False)

    def train(self, placed: _Placed, running: Sequence[int]) -> Metrics:
        """All lanes: one that went wrong goes on computing what nobody reads."""
        train = self._program.train_shared if placed.shared else self._program.train_own
        self._state, metrics = train(self._state, placed.batch, placed.n_steps, self._settings)
        return metrics

    def read(self, metrics: Metrics) -> dict[int, Columns]:
        """Each lane's, of arrays [lanes, K]."""
        together = jax.device_get(metrics)
        return {
            i: as_columns(jax.tree.map(lambda x, i=i: x[i], together))
            for i in range(len(together.loss))
        }

    def state(self, lane: int) -> TrainState:
        """A copy, on the devices of a single run: its checkpoints are any run's."""
        shardings = jax.tree.map(lambda x: x.sharding, self._experiment.steps.abstract_state)
        return jax.device_put(jax.tree.map(lambda x: x[lane], self._state), shardings)

    def validate(self, running: Sequence[int], max_sequences: int | None) -> dict[int, Validation]:
        """All lanes at once; those that are running are returned."""
        found = validate_lanes(
            self._experiment.config,
            self._program.evaluate,
            evaluation_params(self._state),
            *self._splits,
            self._layout,
            max_sequences,
        )
        return {i: found[i] for i in running}


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
    read: Callable[[int], Sequence[Batch]],
    n_steps_left: int,
) -> tuple[Lanes, str]:
    """The faster kind of lanes for these trials on these devices, and why.

    Accelerators vectorise. On a CPU a few steps are timed both ways, on copies of the states, but
    only where what is left to do is long enough to win back the second compilation.

    read: the batches of so many steps.
    """
    if len(experiments) == 1 or not n_steps_left:
        return TurnLanes(experiments, states), "one trial" if n_steps_left else "at their end"
    if not is_vectorised(experiments[0].config, len(devices)):
        return TurnLanes(experiments, states), "in turns: experts on several devices"
    if devices[0].platform != "cpu" or len(devices) > experiments[0].layout.mesh.size:
        return VectorLanes(experiments, states, devices), "vectorised over the devices"
    n_steps = experiments[0].steps_per_dispatch
    batches = read(1)
    compiling, turns = _time(TurnLanes(experiments, _copies(states)), batches, n_steps, len(states))
    if turns * n_steps_left < WORTH * compiling:
        return TurnLanes(experiments, states), "in turns: too short to try vectorising"
    _, vector = _time(VectorLanes(experiments, states, devices), batches, n_steps, len(states))
    measured = f"a step of all: {turns * 1e3:.1f} ms in turns, {vector * 1e3:.1f} ms vectorised"
    if vector < CLEARLY_FASTER * turns:
        return VectorLanes(experiments, states, devices), f"vectorised ({measured})"
    return TurnLanes(experiments, states), f"in turns ({measured})"


def _copies(states: Sequence[TrainState]) -> list[TrainState]:
    """The step takes its state's buffers; these may be taken."""
    return [jax.tree.map(jnp.copy, state) for state in states]


def _time(
    lanes: Lanes, batches: Sequence[Batch], n_steps: int, n_lanes: int
) -> tuple[float, float]:
    """Seconds of the first call of n_steps, and a step's of the fastest later one."""
    seconds, n_rows = [], batches[0].tokens_BT.shape[-2]
    for _ in range(1 + TIMED_CALLS):
        began = time.perf_counter()
        placed = lanes.place(batches, n_steps, n_rows)
        jax.block_until_ready(lanes.train(placed, range(n_lanes)))
        seconds.append(time.perf_counter() - began)
    return seconds[0], min(seconds[1:]) / n_steps
