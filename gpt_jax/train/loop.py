"""The training loop: one compiled step after another, watched, saved and resumable at any moment.

A loop advances one run, or several that share steps, data and milestones (a packed sweep): lanes.
It hands step k to the devices before it reads the metrics of step k - 1, so the host never
holds them up. State, data order and randomness are functions of the step: a run that was killed
continues from its last checkpoint to the same numbers.
"""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.evaluate.validation import Validation
from gpt_jax.output import say
from gpt_jax.parallel import processes
from gpt_jax.parallel.dispatch import Pace, wait_for_end, waits
from gpt_jax.parallel.feed import put_vote, read_batches
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import Record
from gpt_jax.train.experiment import Prepared, facts, prepare, resolved
from gpt_jax.train.judge import Judge, StoppedEarly
from gpt_jax.train.lanes import Columns, Lane, Lanes, TurnLanes
from gpt_jax.train.recorder import RunRecorder, describe_bad
from gpt_jax.train.start import begin, finished_result, initial_state, opened
from gpt_jax.train.watch import Watch

PROFILED_STEPS = range(10, 15)
"""Steps of a process that `--profile` records: after compilation and the first few."""


class Interrupted(Exception):
    """SIGTERM or Ctrl-C: the state is saved, and the same command continues."""


def train(
    config: Config,
    directory: Path,
    *,
    resume_changed: bool = False,
    branch: tuple[RunDirectory, int] | None = None,
    profile: bool = False,
    judge: Judge | None = None,
) -> Record:
    """Train to the end, or on from the last checkpoint; returns what result.json holds.

    branch: a run and a step of it that a new run takes over as its own past: `resume.take_over`.

    judge: may stop a run of one process before its end.

    Raises ValueError for a config that cannot run here or differs from the run's, `Diverged`,
    `StoppedEarly` by the judge, or `Interrupted`.
    """
    config, run = resolved(config), RunDirectory(directory)
    with run.locked():
        result = finished_result(run, config, resume_changed)
        if result is not None:
            return result
        prepared = prepare(config, run)
        processes.agree(_must_be_alike(prepared))
        with opened(prepared, resume_changed) as checkpoints:
            processes.agree({"the checkpoints that are found": checkpoints.steps()})
            experiment, state, done_steps = initial_state(prepared, checkpoints, branch)
            begin(experiment)
            lane = Lane(experiment, RunRecorder(experiment, checkpoints, done_steps), judge)
            lanes = TurnLanes([experiment], [state])
            del state  # the first step takes its buffers
            loop = Loop([lane], lanes, done_steps, Watch(lane, done_steps), profile=profile)
            with contextlib.closing(loop):
                with stop_signals() as stop:
                    loop.take_steps(stop)
                loop.finish()
    if lane.error is not None:
        raise lane.error
    assert lane.result is not None
    return lane.result


def _must_be_alike(experiment: Prepared) -> Record:
    """Facts that each process of a run found by itself and that must agree."""
    found = {k: v for k, v in facts(experiment).items() if k != "peak_flops"}  # it is measured
    named = {"data": "the digest of the data", "base": "the digest of the base"}
    return {named.get(name, name): value for name, value in found.items()}


class Shown(Protocol):
    """Shows a loop to whoever watches it."""

    def start(self) -> None:
        """Before the first step."""

    def step(self, lane: Lane, step: int, loss: float, seconds: float) -> None:
        """A step of a lane was read."""

    def say(self, lane: Lane, text: str) -> None:
        """A line about a lane."""

    def close(self) -> None:
        """The loop is over."""


@dataclasses.dataclass
class Call:
    """Steps that are handed to the devices together."""

    steps: range
    placed: Any
    """Their batches, as `Lanes.place` makes them."""
    data_wait: float
    """Seconds that reading the batches took."""


@dataclasses.dataclass
class Pending:
    """Steps that were handed to the devices and not read yet."""

    steps: range
    metrics: Any
    data_wait: float
    stop: jax.Array | None
    """Vote of several processes: whether any had a stop signal before these steps were dispatched;
    not read yet. None if the run has a single process."""

    @property
    def voted(self) -> bool:
        """Whether a process of several was told to stop: the same answer in each."""
        return self.stop is not None and bool(self.stop)


class Loop:
    """One process's part of one run, or of several that take their steps together.

    All lanes have one timetable, and the same milestones: those of the first. What becomes of each
    is in its `error` or `result`.
    """

    def __init__(
        self,
        all_lanes: Sequence[Lane],
        lanes: Lanes,
        done_steps: int,
        watch: Shown,
        *,
        profile: bool = False,
    ):
        self.all, self.lanes, self.watch = all_lanes, lanes, watch
        self.first, self.first_step = all_lanes[0], done_steps
        experiment = self.first.experiment
        self.timetable, self.capacity = experiment.timetable, experiment.steps_per_dispatch
        self.profile = profile and is_writer()
        self.trace = experiment.run.path / "profile"
        self.pace = Pace(experiment.config, self.capacity)
        platform = experiment.layout.mesh.devices.flat[0].platform
        self.waits = waits(self.capacity, platform)
        self.last_time = time.monotonic()

    def running(self) -> list[int]:
        """Indices of the lanes that take part in the next steps."""
        return [i for i, lane in enumerate(self.all) if lane.running]

    def close(self) -> None:
        """Close what shows and records the lanes."""
        self.watch.close()
        for lane in self.all:
            lane.recorder.log.close(lane.result is not None)

    def take_steps(self, stop: list[int]) -> None:
        """Take every step that is left, with validations and checkpoints where they are due.

        stop: holds a signal once one came. Raises `Interrupted` after saving all lanes.
        """
        self.watch.start()
        for lane in self.all:
            lane.ended = lane.recorder.end_step is not None
        layout, n_steps = self.first.experiment.layout, self.timetable.n_steps
        pending: Pending | None = None
        call = self._next_call(self.first_step)
        while call is not None:
            if pending is not None and self.waits:
                wait_for_end(pending.metrics)
            with self._profiled(call.steps):
                metrics = self.lanes.train(call.placed, self.running())
            vote = put_vote(bool(stop), layout)
            previous, pending = pending, Pending(call.steps, metrics, call.data_wait, vote)
            done = call.steps.stop
            call = self._next_call(done)
            self._read(previous)
            if not self.running():
                return
            stopping = bool(stop) if vote is None else previous is not None and previous.voted
            validating = self.first.recorder.validation_due(done)
            saving = self.first.recorder.save_due(done)
            if validating or saving or stopping or self._to_judge(done):
                self._read(pending)
                stopping |= pending.voted
                pending = None
                self._milestone(self.running(), done, validating, saving or stopping)
            if not self.running():
                return
            if stopping and done < n_steps:
                self._interrupt(done, stop)

    def finish(self) -> None:
        """Validate lanes whose last step was not, and write loss curve and result.json of all."""
        for i, lane in enumerate(self.all):
            if lane.error is not None:
                continue
            if not lane.recorder.is_validated():
                self._milestone([i], self.timetable.n_steps, validating=True, saving=True)
            if n := lane.recorder.log.history.n_left_out:
                n_steps = self.timetable.n_steps
                self.watch.say(lane, f"{n:,} of {n_steps:,} updates were left out")
            lane.result = lane.recorder.finish(self._tested(i, lane))

    def _tested(self, i: int, lane: Lane) -> Record | None:
        """Scores of the task's test examples; None where there are none."""
        task = lane.experiment.config.task
        if not task.test:
            return None
        from gpt_jax.train.task_report import test

        return test(lane.experiment, lane.recorder.checkpoints, self.lanes.state(i))

    def _interrupt(self, done: int, stop: list[int]) -> None:
        for i in self.running():
            self.all[i].recorder.checkpoints.wait()
        name = signal.Signals(stop[0]).name if stop else "another process's signal"
        raise Interrupted(
            f"stopped by {name} after step {done:,} of {self.timetable.n_steps:,}; saved: the same "
            f"command continues"
        )

    def _next_call(self, step: int) -> Call | None:
        """The steps from `step` on that are handed over together; None at the end."""
        if step >= self.timetable.n_steps or not self.running():
            return None
        n = self.first.recorder.steps_until_due(step, self.pace.steps)
        batches, seconds = read_steps(self.all, step, n)
        placed = self.lanes.place(batches, n, self.timetable.batch_sequences(step))
        return Call(range(step, step + n), placed, seconds)

    def _read(self, pending: Pending | None) -> None:
        """Wait for steps, write their records and show them; lanes that went wrong are over."""
        if pending is None:
            return
        by_lane = self.lanes.read(pending.metrics)
        steps, now = pending.steps, time.monotonic()
        seconds, self.last_time = (now - self.last_time) / len(steps), now
        self.pace.took(seconds)
        wait = pending.data_wait / len(steps)
        for i in self.running():
            self._record(self.all[i], steps, by_lane[i], seconds, wait)

    def _record(
        self, lane: Lane, steps: range, columns: Columns, seconds: float, data_wait: float
    ) -> None:
        """Write and show the steps of one lane, up to one that ends it."""
        for j, step in enumerate(steps):
            values = {name: column[j] for name, column in columns.items()}
            bad = lane.recorder.record_step(step, values, seconds, data_wait)
            self.watch.step(lane, step, values["loss"], seconds)
            if bad:
                lane.error = lane.recorder.divergence(step, values)
                if lane.error is not None:
                    return
                what = describe_bad(values)
                self.watch.say(lane, f"step {step + 1:,}: {what}: update left out")

    def _to_judge(self, done: int) -> list[int]:
        """Lanes whose judge decides after `done` steps."""
        if done >= self.timetable.n_steps:
            return []
        judges = [(i, self.all[i].judge) for i in self.running()]
        return [i for i, judge in judges if judge is not None and judge.due(done)]

    def _validated(self, running: Sequence[int], most: int | None) -> dict[int, Validation]:
        """The validation of each running lane, with the scores of its tasks."""
        found = self.lanes.validate(running, most)
        for i in running:
            experiment = self.all[i].experiment
            if experiment.tasks is not None:
                scores = experiment.tasks.scores(experiment.whole(self.lanes.state(i)))
                found[i] = dataclasses.replace(found[i], scores={**found[i].scores, **scores})
        return found

    def _milestone(self, running: Sequence[int], done: int, validating: bool, saving: bool) -> None:
        """Judge, validate and save, where due."""
        verdicts = {}
        for i in self._to_judge(done):
            lane = self.all[i]
            assert lane.judge is not None
            if verdict := lane.judge.verdict(done, lane.recorder.log.history):
                verdicts[i] = verdict
        most = self.first.recorder.max_sequences(done)
        validations = self._validated(running, most) if validating else {}
        for i in running:
            lane = self.all[i]
            lane.recorder.milestone(
                lambda: self.lanes.state(i),  # noqa: B023
                done,
                validations.get(i),
                saving or i in verdicts,
            )
            if i in verdicts:
                lane.recorder.checkpoints.wait()
                lane.error = StoppedEarly(verdicts[i])
            elif lane.recorder.end_step is not None and not lane.ended:
                lane.ended = True
                task = lane.experiment.config.task
                what = f"{task.patience} validations without a better {task.chosen_by}"
                self.watch.say(lane, f"stopped early: {what}")
        self.last_time = time.monotonic()

    @contextlib.contextmanager
    def _profiled(self, steps: range) -> Iterator[None]:
        """Record a trace of some calls of this process, if asked for: the last one ends it."""
        last_step = self.timetable.n_steps - 1
        begins = min(self.first_step + PROFILED_STEPS.start, last_step)
        ends = min(self.first_step + PROFILED_STEPS.stop - 1, last_step)
        if self.profile and begins in steps:
            jax.profiler.start_trace(str(self.trace))
        yield
        if self.profile and ends in steps:
            jax.profiler.stop_trace()
            self.watch.say(self.first, f"wrote a trace to {self.trace}")


def read_steps(lanes: Sequence[Lane], step: int, n: int) -> tuple[list[Batch], float]:
    """The batches of n steps for each lane, or one for all where they have one seed; and the
    seconds that reading took."""
    seeds = {lane.experiment.config.seed for lane in lanes}
    read = [
        read_batches(
            lane.experiment.stream,
            lane.experiment.timetable,
            step,
            n,
            lane.experiment.steps_per_dispatch,
            lane.experiment.layout.batch,
        )
        for lane in (lanes[:1] if len(seeds) == 1 else lanes)
    ]
    return [batch for batch, _ in read], sum(seconds for _, seconds in read)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that holds the signal once SIGTERM, Ctrl-C or SIGHUP (a closed terminal) came.

    A second Ctrl-C is an exception. A signal that is ignored (SIGHUP under nohup) stays so.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, before[number])
        say("\nstopping after this step; saving")

    if threading.current_thread() is not threading.main_thread():
        yield received  # Python gives signals to the main thread alone
        return
    numbers = (int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP))
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
