"""The training loop: one compiled step after another, watched, saved and resumable at any moment.

The loop hands step k to the devices before it reads the metrics of step k - 1, so the host never
holds them up. State, data order and randomness are functions of the step: a run that was killed
continues from its last checkpoint to the same numbers.
"""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from gpt_jax.config import Config
from gpt_jax.config.timetable import make_timetable
from gpt_jax.data.batch import Batch
from gpt_jax.evaluate.validation import Validation
from gpt_jax.output import say
from gpt_jax.parallel import processes
from gpt_jax.parallel.dispatch import Pace, wait_for_end, waits
from gpt_jax.parallel.feed import put_batch, put_count, put_vote, read_batches
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import Progress, ProgressReport, Record
from gpt_jax.steps.step import Metrics, TrainState
from gpt_jax.train.experiment import Experiment, facts, prepare, resolved
from gpt_jax.train.judge import Judge, StoppedEarly
from gpt_jax.train.recorder import RunRecorder, describe_bad
from gpt_jax.train.start import begin, finished_result, initial_state, opened

LINES_IN_ALL = 20
"""Progress lines of a whole run where there is no terminal, unless the config says otherwise."""
PROFILED_STEPS = range(10, 15)
"""Steps of a process that `--profile` records: after compilation and the first few."""


class Interrupted(Exception):
    """SIGTERM or Ctrl-C: the state is saved, and the same command continues."""


@dataclasses.dataclass
class Pending:
    """Steps that were handed to the devices and not read yet."""

    steps: range
    metrics: Metrics
    """[K] arrays."""
    data_wait: float
    """Seconds that their batches took."""
    stop: jax.Array | None
    """Vote of several processes: whether any had a stop signal before these steps were dispatched;
    not read yet. None if the run has a single process."""

    @property
    def voted(self) -> bool:
        """Whether a process of several was told to stop: the same answer in each."""
        return self.stop is not None and bool(self.stop)


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

    branch: a run and a step of it that a new run takes over as its own past: `start.take_over`.

    judge: may stop a run of one process before its end.

    Raises ValueError for a config that cannot run here or differs from the run's, `Diverged`,
    `StoppedEarly` by the judge, or `Interrupted`.
    """
    config, run = resolved(config), RunDirectory(directory)
    with run.locked():
        result = finished_result(run, config, resume_changed)
        if result is not None:
            return result
        experiment = prepare(config, run)
        processes.agree(_must_be_alike(experiment))
        with opened(experiment, resume_changed) as checkpoints:
            processes.agree({"the checkpoints that are found": checkpoints.steps()})
            experiment, state, done_steps = initial_state(experiment, checkpoints, branch)
            experiment = experiment.taught()
            begin(experiment)
            return _Loop(experiment, checkpoints, done_steps, profile, judge).run(state)


def _must_be_alike(experiment: Experiment) -> Record:
    """Facts that each process of a run found by itself and that must agree."""
    found = {k: v for k, v in facts(experiment).items() if k != "peak_flops"}  # it is measured
    named = {"data": "the digest of the data", "base": "the digest of the base"}
    return {named.get(name, name): value for name, value in found.items()}


class _Loop:
    """One process's part of a run: the loop and what hangs on it."""

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        done_steps: int,
        profile: bool,
        judge: Judge | None,
    ):
        config, timetable = experiment.config, experiment.timetable
        self.experiment, self.checkpoints = experiment, checkpoints
        self.profile = profile and is_writer()
        self.first_step = done_steps
        self.judge = judge
        self.recorder = RunRecorder(experiment, checkpoints, done_steps)
        every = config.tracking.print_every_tokens or timetable.n_tokens // LINES_IN_ALL
        self.report = ProgressReport(
            timetable.n_steps, done_steps, timetable.due(every), is_writer()
        )
        self.pace = Pace(config, experiment.steps_per_dispatch)
        platform = experiment.layout.mesh.devices.flat[0].platform
        self.waits = waits(experiment.steps_per_dispatch, platform)
        self.last_time = self.started = time.monotonic()
        self.seconds_per_token = math.nan

    def run(self, state: TrainState) -> Record:
        finished = False
        try:
            with stop_signals() as stop:
                state = self._steps(state, stop)
            result = self._finish(state)
            finished = True
            return result
        finally:
            self.report.close()
            self.recorder.log.close(finished)

    def _steps(self, state: TrainState, stop: list[int]) -> TrainState:
        experiment, n_steps = self.experiment, self.experiment.timetable.n_steps
        self._say_start()
        pending: Pending | None = None
        over = self.recorder.end_step is not None
        call = None if over else self._next_call(self.first_step)
        while call is not None:
            steps, batches, data_wait = call
            count = put_count(len(steps), experiment.layout.everywhere)
            if pending is not None and self.waits:
                wait_for_end(pending.metrics)
            with self._profiled(steps):
                state, metrics = experiment.steps.train(state, batches, count, experiment.settings)
            vote = put_vote(bool(stop), experiment.layout)
            previous, pending = pending, Pending(steps, metrics, data_wait, vote)
            done = steps.stop
            call = self._next_call(done)
            if previous is not None:
                self._read(previous)
            stopping = bool(stop) if vote is None else previous is not None and previous.voted
            validating = self.recorder.validation_due(done)
            saving = self.recorder.save_due(done)
            judging = self.judge is not None and done < n_steps and self.judge.due(done)
            if validating or saving or stopping or judging:
                self._read(pending)
                stopping |= pending.voted
                pending = None
                verdict = ""
                if self.judge is not None and judging:
                    verdict = self.judge.verdict(done, self.recorder.log.history)
                self._milestone(state, done, validating, saving or stopping or bool(verdict))
                if verdict:
                    self.checkpoints.wait()
                    raise StoppedEarly(verdict)
            if self.recorder.end_step is not None:
                n, metric = experiment.config.task.patience, experiment.config.task.chosen_by
                self.report.say(f"stopped early: {n} validations without a better {metric}")
                break
            if stopping and done < n_steps:
                self.checkpoints.wait()
                name = signal.Signals(stop[0]).name if stop else "another process's signal"
                raise Interrupted(
                    f"stopped by {name} after step {done:,} of "
                    f"{n_steps:,}; saved: the same command continues"
                )
        return state

    def _next_call(self, step: int) -> tuple[range, Batch, float] | None:
        """The steps from `step` on that are handed over together, their batches on the devices,
        and the seconds it took to read these; None at the end."""
        experiment = self.experiment
        if step >= experiment.timetable.n_steps:
            return None
        n = self.recorder.steps_until_due(step, self.pace.steps)
        layout, sequences = experiment.layout, experiment.timetable.batch_sequences(step)
        batches, seconds = read_batches(
            experiment.stream,
            experiment.timetable,
            step,
            n,
            experiment.steps_per_dispatch,
            layout.batch,
        )
        return range(step, step + n), put_batch(batches, layout.batches, sequences), seconds

    def _read(self, pending: Pending) -> None:
        """Wait for steps, write their records, show them, and stop the run if one went wrong."""
        metrics = jax.device_get(pending.metrics).columns()
        columns = {name: column.tolist() for name, column in metrics.items()}
        now = time.monotonic()
        seconds, self.last_time = (now - self.last_time) / len(pending.steps), now
        self.pace.took(seconds)
        timetable, data_wait = self.experiment.timetable, pending.data_wait / len(pending.steps)
        for i, step in enumerate(pending.steps):
            values = {name: column[i] for name, column in columns.items()}
            bad = self.recorder.record_step(step, values, seconds, data_wait)
            batch_tokens = timetable.tokens_before(step + 1) - timetable.tokens_before(step)
            self._show(step, values["loss"], seconds / batch_tokens)
            if bad and (error := self.recorder.divergence(step, values)):
                raise error
            if bad:
                self.report.say(f"step {step + 1:,}: {describe_bad(values)}: update left out")

    def _show(self, step: int, loss: float, seconds_per_token: float) -> None:
        if step == self.first_step:
            self.report.say(f"first step after {time.monotonic() - self.started:.1f} s")
            return  # compilation is not speed
        mean = self.seconds_per_token
        if math.isnan(mean):
            mean = seconds_per_token
        self.seconds_per_token = mean = 0.95 * mean + 0.05 * seconds_per_token
        peak, timetable = self.experiment.peak_flops, self.experiment.timetable
        mfu = None if peak is None else self.recorder.flops_per_token / mean / peak
        left = mean * (timetable.n_tokens - timetable.tokens_before(step + 1))
        self.report.update(
            Progress(
                step + 1,
                timetable.n_steps,
                loss,
                1 / mean,
                mfu,
                left,
                self.recorder.last_validation,
            )
        )

    def _milestone(self, state: TrainState, done: int, validating: bool, saving: bool) -> None:
        """Validate and save, where due."""
        validation = self._validate(state, done) if validating else None
        self.recorder.milestone(lambda: state, done, validation, saving)
        self.last_time = time.monotonic()

    def _validate(self, state: TrainState, done: int) -> Validation:
        experiment = self.experiment
        return experiment.validate(experiment.whole(state), self.recorder.max_sequences(done))

    def _finish(self, state: TrainState) -> Record:
        """Final validation if the last step had none, loss curve, result.json."""
        if not self.recorder.is_validated():
            n_steps = self.experiment.timetable.n_steps
            self._milestone(state, n_steps, validating=True, saving=True)
        if n := self.recorder.log.history.n_left_out:
            self.report.say(f"{n:,} of {self.experiment.timetable.n_steps:,} updates were left out")
        task = self.experiment.config.task
        if task.name == "language_model" or not task.test:
            return self.recorder.finish()
        from gpt_jax.train.task_report import test

        return self.recorder.finish(test(self.experiment, self.checkpoints, state))

    def _say_start(self) -> None:
        experiment, n_steps = self.experiment, self.experiment.timetable.n_steps
        known = facts(experiment)
        if self.first_step >= n_steps:
            return
        timetable = experiment.timetable
        if self.first_step and timetable != make_timetable(experiment.config):
            n_tokens = timetable.tokens_before(self.first_step)
            sample = timetable.samples_before(self.first_step)
            self.report.say(
                f"{n_tokens:,} tokens were trained in other batches or to another length: they "
                f"count as they were, and sample {sample:,} is next"
            )
        begun = f"continuing after step {self.first_step:,} of" if self.first_step else "training"
        self.report.say(
            f"{begun} {n_steps:,} steps, {experiment.timetable.n_tokens:,} tokens, into "
            f"{experiment.run.path}\n"
            f"model: {known['n_params']:,} parameters ({known['n_params_non_embedding']:,} "
            f"non-embedding), layers {known['layers']}, {known['operands']} products, attention "
            f"{known['attention']}, loss of {known['loss']}, up to "
            f"{known['steps_per_dispatch']} steps a call\n"
            f"devices: {known['devices']}, mesh "
            + " x ".join(f"{axis} {size}" for axis, size in known["mesh"].items())
        )
        config = experiment.config
        if config.base:
            self.report.say(f"begins from {config.base} (weights {known['base']})")
        if config.distill.teacher:
            self.report.say(f"learns from {config.distill.teacher} (weights {known['teacher']})")
        if config.adapt.method != "full":
            self.report.say(
                f"trained: {known['n_params_trained']:,} parameters ({config.adapt.method})"
            )
        if known["n_params_active"] != known["n_params"]:
            self.report.say(f"experts: {known['n_params_active']:,} parameters compute a token")
        if warning := experiment.model.execution.kernel.warning:
            self.report.say(warning)

    @contextlib.contextmanager
    def _profiled(self, steps: range) -> Iterator[None]:
        """Record a trace of some calls of this process, if asked for: the last one ends it."""
        last_step = self.experiment.timetable.n_steps - 1
        begins = min(self.first_step + PROFILED_STEPS.start, last_step)
        ends = min(self.first_step + PROFILED_STEPS.stop - 1, last_step)
        if self.profile and begins in steps:
            jax.profiler.start_trace(str(self.experiment.run.path / "profile"))
        yield
        if self.profile and ends in steps:
            jax.profiler.stop_trace()
            self.report.say(f"wrote a trace to {self.experiment.run.path / 'profile'}")


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
