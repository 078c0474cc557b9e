"""Packs: the trials of a sweep that one process trains together.

Trials fit in a pack if they differ in what is an argument of the compiled step alone: learning
rate, weight decay, betas, schedule, initialisation, seed. Packs of different shapes take different
devices of the host. Every trial keeps a run directory of its own, the same as a single run's, and
may be continued by one.
"""

import contextlib
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import jax

from gpt_jax.config import Config, overrides
from gpt_jax.config.mesh_sizes import least_devices
from gpt_jax.hints import counted
from gpt_jax.output import say
from gpt_jax.runs.checkpoint_files import saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.steps.compiled_steps import program_config
from gpt_jax.steps.step import TrainState
from gpt_jax.sweep.attempt import attempt
from gpt_jax.sweep.lanes import choose_lanes, device_groups
from gpt_jax.sweep.store import Entry, State, SweepDirectory
from gpt_jax.train.experiment import Experiment, prepare
from gpt_jax.train.lanes import Lane
from gpt_jax.train.loop import Interrupted, Loop, read_steps, stop_signals
from gpt_jax.train.recorder import RunRecorder
from gpt_jax.train.resume import whole_steps
from gpt_jax.train.start import begin, finished_result, initial_state, opened

PACK_SIZE = 16
"""Trials of a pack at most: their states and activations are in memory together."""

Outcomes = dict[str, tuple[State, str]]


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
        for entry in job.entries:
            found = job.outcome(entry.name)
            if found is not None and found[0] == "diverged":  # whatever becomes of the others
                job.sweep.finish(entry.name, *found)
        return
    for entry in job.entries:
        # What broke the pack broke all of its trials but those that were done with.
        outcomes[entry.name] = job.outcome(entry.name) or (state, message)


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
        """Outcomes of trials that were done before."""
        self.lanes: dict[str, Lane] = {}

    def run(self) -> None:
        """Train all to their ends; `outcome` says what became of each."""
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
        prepared = [prepare(e.config, self.sweep.run(e.name), next(groups)) for e in entries]
        checkpoints = [stack.enter_context(opened(each)) for each in prepared]
        experiments: list[Experiment] = []
        states: list[TrainState] = []
        for entry, each, saved in zip(entries, prepared, checkpoints, strict=True):
            branch = self.sweep.branch_step(entry)
            experiment, state, done = initial_state(each, saved, branch, step)
            begin(experiment)
            experiments.append(experiment)
            states.append(state)
        lanes = [
            Lane(experiment, RunRecorder(experiment, saved, done))
            for experiment, saved in zip(experiments, checkpoints, strict=True)
        ]
        self.lanes |= dict(zip([entry.name for entry in entries], lanes, strict=True))
        n_left = max(0, experiments[0].timetable.n_steps - done)
        kind, why = choose_lanes(
            experiments, states, self.devices, lambda n: read_steps(lanes, done, n)[0], n_left
        )
        del states, state  # the first step takes their buffers
        where = ", ".join(str(device.id) for device in self.devices)
        what = f"{counted(len(lanes), 'trial')} {why}; devices {where}"
        loop = Loop(lanes, kind, done, _Lines(what))
        with contextlib.closing(loop):
            loop.take_steps(self.stop)
            loop.finish()

    def outcome(self, name: str) -> tuple[State, str] | None:
        """The outcome of a trial; None as long as it is not known."""
        lane = self.lanes.get(name)
        if lane is None:
            return self.outcomes.get(name)
        if lane.error is not None:
            return "diverged", str(lane.error)
        return None if lane.result is None else ("done", "")


class _Lines:
    """A pack as lines that name the trial (`gpt_jax.train.loop.Shown`)."""

    def __init__(self, about: str):
        self.about = about

    def start(self) -> None:
        """How the trials are advanced, and on which devices."""
        say(self.about)

    def step(self, lane: Lane, step: int, loss: float, seconds: float) -> None:
        """Single steps are not shown."""

    def say(self, lane: Lane, text: str) -> None:
        """A line."""
        say(f"{lane.experiment.config.name}: {text}")

    def close(self) -> None:
        """Nothing is left open."""


def _steps_to_resume(run: RunDirectory) -> list[int]:
    """The steps of checkpoints that a run may go on from; none of one that has not begun."""
    saved = saved_steps(run.checkpoints)
    return whole_steps(run.path, run.metrics, saved) if saved else []


def common_step(steps: Sequence[Sequence[int]]) -> int | None:
    """The last step that every trial has saved: where the pack goes on; None if there is none.

    A kill between two trials' saves leaves one of them a checkpoint ahead; it goes back.
    """
    return max(set.intersection(*map(set, steps)), default=None) if steps else None
