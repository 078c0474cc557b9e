"""Packs: the trials of a sweep that one process trains together.

Trials fit in a pack if they differ in what is an argument of the compiled step alone: learning
rate, weight decay, betas, schedule, initialisation, seed. Packs of different shapes take different
devices of the host. Every trial keeps a run directory of its own, the same as a single run's, and
may be continued by one.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax

from gpt_jax import overrides
from gpt_jax.checkpoint import Checkpoints
from gpt_jax.checkpoint_files import saved_steps
from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.evaluate.validation import process_rows
from gpt_jax.experiment import Experiment, prepare
from gpt_jax.recorder import RunRecorder, describe_bad
from gpt_jax.step import Metrics, TrainState, program_config
from gpt_jax.sweep.attempt import attempt
from gpt_jax.sweep.lanes import Lanes, TurnLanes, choose_lanes
from gpt_jax.sweep.store import Entry, State, SweepDirectory
from gpt_jax.train import Interrupted, begin, finished_result, initial_state, opened, stop_signals

PACK_SIZE = 16
"""Trials of a pack at most: their states and activations are in memory together."""

FREE = ("name", "seed", "optimizer", "schedule", "model", "tracking")
"""Sections that may differ within a pack, as far as `program_config` allows."""

Outcomes = dict[str, tuple[State, str]]


def pack_key(config: Config) -> Config:
    """Equal for trials that fit in a pack: one program, and the same steps, data and milestones."""
    program = program_config(config)
    free = {key: value for key, value in overrides.flatten(program).items() if _is_free(key)}
    return overrides.draft(config, free)


def _is_free(key: str) -> bool:
    return key.split(".")[0] in FREE


def choose_pack(sweep: SweepDirectory, ready: list[Entry], n_workers: int = 1) -> list[Entry]:
    """The first packs of what is ready: as many as there are devices for.

    n_workers: which share the work; each takes that part of a pack.
    """
    states = list(sweep.states().values())
    free = max(1, n_workers - (states.count("running") > 0))
    packs = [pack[: -(-len(pack) // free)] for pack in group(sweep, ready)]
    spans = [_devices_per_trial(pack[0].config) for pack in packs]
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
            if waiting:
                self._train(waiting, stack)

    def _train(self, entries: Sequence[Entry], stack: contextlib.ExitStack) -> None:
        span = _devices_per_trial(entries[0].config)
        experiments = [
            prepare(e.config, self.sweep.run(e.name), self.devices[:span]) for e in entries
        ]
        checkpoints = [stack.enter_context(opened(experiment)) for experiment in experiments]
        common = common_step(checkpoints)
        states: list[TrainState] = []
        for entry, experiment, saved in zip(entries, experiments, checkpoints, strict=True):
            branch = self.sweep.branch_step(entry)
            state, done = initial_state(experiment, saved, branch=branch, step=common)
            begin(experiment)
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

        As in the loop of a single run, a step's metrics are read when the next is under way.
        """
        n_steps, first = trials[0].experiment.timetable.n_steps, trials[0].recorder
        experiments = [trial.experiment for trial in trials]
        if done >= n_steps:
            self._milestone(trials, TurnLanes(experiments, states), n_steps, True, False)
            return
        batches, wait = _batches(trials, done)
        lanes, why = choose_lanes(experiments, states, self.devices, batches, n_steps - done)
        where = ", ".join(str(device.id) for device in self.devices)
        print(f"{len(trials)} trials {why}; devices {where}", flush=True)
        reader = _Reader(self, trials)
        for step in range(done, n_steps):
            metrics = lanes.train(batches, self._alive(trials))
            batches, next_wait = _batches(trials, min(step + 1, n_steps - 1))
            reader.read_previous(step, metrics, wait)
            wait = next_wait
            validating = first.validation_due(step + 1)
            saving = first.save_due(step + 1)
            if validating or saving or self.stop or step + 1 == n_steps:
                reader.read_all()
                saving = saving or bool(self.stop)
                self._milestone(trials, lanes, step + 1, validating, saving)
                reader.restart()
            if not self._alive(trials):
                return
            if self.stop and step + 1 < n_steps:
                for i in self._alive(trials):
                    trials[i].recorder.checkpoints.wait()
                raise Interrupted(f"after step {step + 1:,} of {n_steps:,} of a pack; saved")

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

    def read(self, trials: Sequence[_Trial], step: int, metrics: Sequence[Metrics], seconds: float,
             wait: float) -> None:  # fmt: skip
        """Write each trial's record of a step; one that went wrong leaves the pack."""
        lanes = _by_lane(jax.device_get(metrics), len(trials))
        for i in self._alive(trials):
            trial, values = trials[i], lanes[i]
            bad = trial.recorder.record_step(step, values, seconds, wait)
            if bad and trial.experiment.config.train.on_bad_step == "stop":
                error = trial.recorder.divergence(step, values)
                self.outcomes[trial.entry.name] = ("diverged", str(error))
            elif bad:
                print(f"{trial.entry.name}: step {step + 1:,}: {describe_bad(values)}: left out")


class _Reader:
    """Reads a step's metrics once the next step was handed to the devices."""

    def __init__(self, pack: _Pack, trials: Sequence[_Trial]):
        self._pack, self._trials = pack, trials
        self._pending: tuple[int, list[Metrics], float] | None = None
        self.restart()

    def restart(self) -> None:
        """What was done since the last step is not the next one's time."""
        self._last = time.monotonic()

    def read_previous(self, step: int, metrics: list[Metrics], wait: float) -> None:
        self.read_all()
        self._pending = (step, metrics, wait)

    def read_all(self) -> None:
        """Everything that was handed to the devices."""
        if self._pending is None:
            return
        step, metrics, wait = self._pending
        self._pending = None
        metrics = jax.device_get(metrics)
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        self._pack.read(self._trials, step, metrics, seconds, wait)


def common_step(checkpoints: Sequence[Checkpoints]) -> int | None:
    """The last step that every trial has saved: where the pack goes on; None = from the start.

    A kill between two trials' saves leaves one of them a checkpoint ahead; it goes back.
    """
    common = set.intersection(*(set(saved.steps()) for saved in checkpoints))
    return max(common, default=None)


def _devices_per_trial(config: Config) -> int:
    """What the mesh asks for: one device where it leaves the data axis open."""
    return max(1, config.mesh.data) * config.mesh.fsdp * config.mesh.tensor


def _batches(trials: Sequence[_Trial], step: int) -> tuple[list[Batch], float]:
    """The trials' batches of a step, one for all where they have one seed; and the seconds."""
    began = time.monotonic()
    timetable = trials[0].experiment.timetable
    sequences, first = timetable.batch_sequences(step), timetable.samples_before(step)
    seeds = {trial.experiment.config.seed for trial in trials}
    sources = trials[:1] if len(seeds) == 1 else trials
    batches = [
        trial.experiment.stream.batch(first, sequences, process_rows(sequences))
        for trial in sources
    ]
    return batches, time.monotonic() - began


def _by_lane(metrics: Sequence[Metrics], n_lanes: int) -> list[dict[str, float]]:
    """Metrics of [K] arrays, or one Metrics a lane, as one dict of floats a lane."""
    if len(metrics) == 1 and n_lanes > 1:
        (together,) = metrics
        return [
            {name: float(values[lane]) for name, values in together._asdict().items()}
            for lane in range(n_lanes)
        ]
    return [{name: float(value) for name, value in lane._asdict().items()} for lane in metrics]
