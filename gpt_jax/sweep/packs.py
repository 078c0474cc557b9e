"""Packs: the trials of a sweep that one process trains together.

Trials fit in a pack if they differ in what is an argument of the compiled step alone: learning
rate, weight decay, betas, schedule, initialisation, seed. Packs of different shapes take different
devices of the host. Every trial keeps a run directory of its own, the same as a single run's, and
may be continued by one.
"""

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax

from gpt_jax.config import Config, overrides
from gpt_jax.config.meshes import least_devices
from gpt_jax.data.batch import Batch
from gpt_jax.output import say
from gpt_jax.parallel.dispatch import Pace
from gpt_jax.parallel.feed import read_batches
from gpt_jax.runs.checkpoint_files import saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.steps.compiled_steps import program_config
from gpt_jax.steps.step import Metrics, TrainState
from gpt_jax.sweep.attempt import attempt
from gpt_jax.sweep.lanes import Lanes, TurnLanes, choose_lanes, device_groups
from gpt_jax.sweep.store import Entry, State, SweepDirectory
from gpt_jax.train.experiment import Experiment, prepare
from gpt_jax.train.loop import Interrupted, stop_signals
from gpt_jax.train.recorder import RunRecorder, describe_bad, whole_steps
from gpt_jax.train.start import begin, finished_result, initial_state, opened

PACK_SIZE = 16
"""Trials of a pack at most: their states and activations are in memory together."""

Outcomes = dict[str, tuple[State, str]]
_Columns = dict[str, list[float]]
"""A value for each step, by the names of `Metrics`."""


def pack_key(config: Config) -> Config:
    """Equal for trials that fit in a pack: one program, and the same steps, data and milestones."""
    program = overrides.flatten(program_config(config))
    free = [key for key, info in overrides.fields().items() if info.facts.use == "lane"]
    return overrides.draft(config, {key: program[key] for key in free})


def choose_pack(sweep: SweepDirectory, ready: list[Entry], n_workers: int = 1) -> list[Entry]:
    """The first packs of what is ready: as many as there are devices for.

    n_workers: which share the work; each takes that part of a pack.
    """
    states = list(sweep.states().values())
    free = max(1, n_workers - (states.count("running") > 0))
    packs = [pack[: -(-len(pack) // free)] for pack in group(sweep, ready)]
    spans = [least_devices(pack[0].config.mesh) for pack in packs]
    n = max(1, min(len(packs), jax.local_device_count() // max(spans)))
    return [entry for pack in packs[:n] for entry in pack]


def group(sweep: SweepDirectory, entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries in packs, in order; those that have begun and those that have not stay apart.

    A branch begins where its trunk's checkpoint is: it trains alone.
    """
    packs: dict[Any, list[list[Entry]]] = {}
    for entry in entries:
        begun = bool(saved_steps(sweep.run(entry.name).checkpoints))
        alone = entry.name if entry.trunk is not None else None
        same = packs.setdefault((pack_key(entry.config), begun, alone), [[]])
        if len(same[-1]) == PACK_SIZE:
            same.append([])
        same[-1].append(entry)
    return [pack for same in packs.values() for pack in same]


def train_packs(sweep: SweepDirectory, entries: Sequence[Entry]) -> Outcomes:
    """Train the entries in packs, those of different shapes at once on devices of their own."""
    packs, outcomes = group(sweep, entries), Outcomes()
    devices = jax.local_devices()
    share = len(devices) // len(packs)
    with stop_signals() as stop:
        jobs = [
            _Pack(sweep, pack, devices[i * share : (i + 1) * share] or devices, stop)
            for i, pack in enumerate(packs)
        ]
        interrupted: list[Interrupted] = []
        if share == 0 or len(jobs) == 1:
            for job in jobs:
                _run(job, outcomes, interrupted)
        else:
            threads = [
                threading.Thread(target=_run, args=(job, outcomes, interrupted)) for job in jobs
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if interrupted:
        raise interrupted[0]
    return outcomes


def _run(job: "_Pack", outcomes: Outcomes, interrupted: list[Interrupted]) -> None:
    try:
        state, message = attempt(job.sweep.run(job.entries[0].name).path, job.run)
    except Interrupted as error:
        interrupted.append(error)
        for name, (state, message) in job.outcomes.items():
            if state == "diverged":  # whatever becomes of the rest of its pack
                job.sweep.finish(name, state, message)
        return
    for entry in job.entries:
        # What broke the pack broke all of its trials but those that were done with.
        outcomes[entry.name] = job.outcomes.get(entry.name, (state, message))


@dataclasses.dataclass
class _Trial:
    """One trial of a pack."""

    entry: Entry
    experiment: Experiment
    recorder: RunRecorder


class _Pack:
    """Trials that take their steps together."""

    def __init__(
        self,
        sweep: SweepDirectory,
        entries: Sequence[Entry],
        devices: Sequence[jax.Device],
        stop: list[int],
    ):
        self.sweep, self.entries, self.devices, self.stop = sweep, entries, devices, stop
        self.outcomes: Outcomes = {}

    def run(self) -> None:
        """Train all to their ends; what became of each is in `outcomes`."""
        with contextlib.ExitStack() as stack:
            waiting = []
            for entry in self.entries:
                run = self.sweep.run(entry.name)
                stack.enter_context(run.locked())
                if finished_result(run, entry.config) is not None:
                    self.outcomes[entry.name] = ("done", "")
                else:
                    waiting.append(entry)
            for entries, step in self._by_step(waiting):
                self._train(entries, step, stack)

    def _by_step(self, entries: Sequence[Entry]) -> list[tuple[list[Entry], int | None]]:
        """Trials that go on together, and the step from which they do; None = from the start."""
        steps = [_steps_to_resume(self.sweep.run(entry.name)) for entry in entries]
        common = common_step(steps)
        if common is not None:
            return [(list(entries), common)]
        groups: dict[int | None, list[Entry]] = {}
        for entry, own in zip(entries, steps, strict=True):
            groups.setdefault(max(own, default=None), []).append(entry)
        return [(together, step) for step, together in groups.items()]

    def _train(
        self, entries: Sequence[Entry], step: int | None, stack: contextlib.ExitStack
    ) -> None:
        for entry in entries:
            if not entry.config.is_pretraining:
                raise ValueError(
                    f"{entry.name} is no plain pretraining: it is not packed; run the sweep with "
                    f"--launcher local or slurm"
                )
        groups = itertools.cycle(device_groups(entries[0].config, self.devices))
        experiments = [prepare(e.config, self.sweep.run(e.name), next(groups)) for e in entries]
        checkpoints = [stack.enter_context(opened(experiment)) for experiment in experiments]
        states: list[TrainState] = []
        for i, (entry, saved) in enumerate(zip(entries, checkpoints, strict=True)):
            branch = self.sweep.branch_step(entry)
            experiments[i], state, done = initial_state(experiments[i], saved, branch, step)
            begin(experiments[i])
            states.append(state)
        trials = [
            _Trial(entry, experiment, RunRecorder(experiment, saved, done))
            for entry, experiment, saved in zip(entries, experiments, checkpoints, strict=True)
        ]
        for trial in trials:
            stack.callback(self._close, trial)
        self._steps(trials, states, done)
        for trial in trials:
            if trial.entry.name not in self.outcomes:
                trial.recorder.finish()
                self.outcomes[trial.entry.name] = ("done", "")

    def _close(self, trial: _Trial) -> None:
        trial.recorder.log.close(self.outcomes.get(trial.entry.name) == ("done", ""))

    def _steps(self, trials: Sequence[_Trial], states: list[TrainState], done: int) -> None:
        """Every step of all trials, each recorded; validations and checkpoints where they are due.

        As in the loop of a single run, metrics are read when the next steps are under way.
        """
        n_steps, first = trials[0].experiment.timetable.n_steps, trials[0].recorder
        experiments = [trial.experiment for trial in trials]
        if done >= n_steps:
            self._validate_late(trials, states, n_steps)
            return
        pace = Pace(experiments[0].config, experiments[0].steps_per_dispatch)
        steps = _next_steps(trials, done, pace)
        batches, wait = _batches(trials, steps)
        lanes, why = choose_lanes(experiments, states, self.devices, batches, n_steps - done)
        where = ", ".join(str(device.id) for device in self.devices)
        say(f"{len(trials)} trials {why}; devices {where}")
        reader = _Reader(self, trials, pace)
        while steps:
            metrics = lanes.train(batches, len(steps), self._alive(trials))
            handed, handed_wait = steps, wait
            steps = _next_steps(trials, handed.stop, pace)
            batches, wait = _batches(trials, steps)
            reader.read_previous(handed, metrics, handed_wait)
            done = handed.stop
            validating = first.validation_due(done)
            saving = first.save_due(done)
            if validating or saving or self.stop:
                reader.read_all()
                saving = saving or bool(self.stop)
                self._milestone(trials, lanes, done, validating, saving)
                reader.restart()
            if not self._alive(trials):
                return
            if self.stop and done < n_steps:
                for i in self._alive(trials):
                    trials[i].recorder.checkpoints.wait()
                raise Interrupted(f"after step {done:,} of {n_steps:,} of a pack; saved")

    def _validate_late(
        self, trials: Sequence[_Trial], states: Sequence[TrainState], n_steps: int
    ) -> None:
        """Validate trials that were trained to their end, where a kill came before that."""
        waiting = [i for i, trial in enumerate(trials) if not trial.recorder.is_validated()]
        if waiting:
            late = [trials[i] for i in waiting]
            lanes = TurnLanes([trial.experiment for trial in late], [states[i] for i in waiting])
            self._milestone(late, lanes, n_steps, True, False)

    def _alive(self, trials: Sequence[_Trial]) -> list[int]:
        return [i for i, t in enumerate(trials) if t.entry.name not in self.outcomes]

    def _milestone(
        self, trials: Sequence[_Trial], lanes: Lanes, done: int, validating: bool, saving: bool
    ) -> None:
        """Validate and save every trial that is still in it."""
        validations = lanes.validate(trials[0].recorder.max_sequences(done)) if validating else None
        for i in self._alive(trials):
            validation = None if validations is None else validations[i]
            trials[i].recorder.milestone(lambda: lanes.state(i), done, validation, saving)  # noqa: B023

    def read(
        self,
        trials: Sequence[_Trial],
        steps: range,
        metrics: Sequence[Metrics],
        seconds: float,
        wait: float,
    ) -> None:
        """Write each trial's records of steps; one that went wrong leaves the pack."""
        lanes = _by_lane(metrics, len(trials))
        for trial, lane in zip(trials, lanes, strict=True):
            if trial.entry.name not in self.outcomes:
                self._read_lane(trial, steps, lane, seconds, wait)

    def _read_lane(
        self, trial: _Trial, steps: range, lane: _Columns, seconds: float, wait: float
    ) -> None:
        for j, step in enumerate(steps):
            values = {name: column[j] for name, column in lane.items()}
            bad = trial.recorder.record_step(step, values, seconds, wait)
            if bad and (error := trial.recorder.divergence(step, values)):
                self.outcomes[trial.entry.name] = ("diverged", str(error))
                return
            if bad:
                say(f"{trial.entry.name}: step {step + 1:,}: {describe_bad(values)}: left out")


class _Reader:
    """Reads the metrics of steps once the next ones were handed to the devices."""

    def __init__(self, pack: _Pack, trials: Sequence[_Trial], pace: Pace):
        self._pack, self._trials, self._pace = pack, trials, pace
        self._pending: tuple[range, list[Metrics], float] | None = None
        self.restart()

    def restart(self) -> None:
        """Start the clock anew: time spent since the last step does not count for the next one."""
        self._last = time.monotonic()

    def read_previous(self, steps: range, metrics: list[Metrics], wait: float) -> None:
        self.read_all()
        self._pending = (steps, metrics, wait)

    def read_all(self) -> None:
        """Everything that was handed to the devices."""
        if self._pending is None:
            return
        steps, metrics, wait = self._pending
        self._pending = None
        metrics = jax.device_get(metrics)
        now = time.monotonic()
        seconds, self._last = (now - self._last) / len(steps), now
        self._pace.took(seconds)
        self._pack.read(self._trials, steps, metrics, seconds, wait / len(steps))


def _steps_to_resume(run: RunDirectory) -> list[int]:
    """The steps of checkpoints that a run may go on from; none of one that has not begun."""
    saved = saved_steps(run.checkpoints)
    return whole_steps(run.path, run.metrics, saved) if saved else []


def common_step(steps: Sequence[Sequence[int]]) -> int | None:
    """The last step that every trial has saved: where the pack goes on; None if there is none.

    A kill between two trials' saves leaves one of them a checkpoint ahead; it goes back.
    """
    return max(set.intersection(*map(set, steps)), default=None) if steps else None


def _next_steps(trials: Sequence[_Trial], step: int, pace: Pace) -> range:
    """The steps of the next call, from `step` on; none at the end."""
    recorder = trials[0].recorder
    if step >= recorder.experiment.timetable.n_steps:
        return range(step, step)
    return range(step, step + recorder.steps_until_due(step, pace.steps))


def _batches(trials: Sequence[_Trial], steps: range) -> tuple[list[Batch], float]:
    """The trials' batches of steps, one for all where they have one seed; and the seconds."""
    if not steps:
        return [], 0.0
    seeds = {trial.experiment.config.seed for trial in trials}
    read = [
        read_batches(
            trial.experiment.stream,
            trial.experiment.timetable,
            steps.start,
            len(steps),
            trial.experiment.steps_per_dispatch,
            trial.experiment.layout.batch,
        )
        for trial in (trials[:1] if len(seeds) == 1 else trials)
    ]
    return [batch for batch, _ in read], sum(seconds for _, seconds in read)


def _by_lane(metrics: Sequence[Metrics], n_lanes: int) -> list[_Columns]:
    """Metrics on the host, of [lanes, K] or one Metrics of [K] a lane, as lists of K a lane."""
    if len(metrics) == 1 and metrics[0].loss.ndim == 2:
        together = metrics[0]
        metrics = [jax.tree.map(lambda x, i=i: x[i], together) for i in range(n_lanes)]
    return [{name: column.tolist() for name, column in m.columns().items()} for m in metrics]
