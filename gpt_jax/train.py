"""The training loop: one compiled step after another, watched, saved and resumable at any moment.

The loop hands step k to the devices before it reads the metrics of step k - 1, so the host never
holds them up. State, data order and randomness are functions of the step: a run that was killed
continues from its last checkpoint to the same numbers.
"""

import contextlib
import dataclasses
import math
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from gpt_jax import flops, overrides
from gpt_jax.checkpoint import Checkpoints, check_fingerprint, restore_params
from gpt_jax.config import Config
from gpt_jax.evaluate.validation import Validation, process_rows, put_batch, validate
from gpt_jax.experiment import Experiment, facts, prepare
from gpt_jax.run import RunDirectory
from gpt_jax.step import Metrics, TrainState, evaluation_params
from gpt_jax.tracking import (
    MetricsLog,
    Progress,
    ProgressReport,
    Record,
    draw_loss_curve,
    finite,
    finite_values,
    make_mirrors,
    write_json,
)

LINES_IN_ALL = 20
"""Progress lines of a whole run where there is no terminal, unless the config says otherwise."""
PROFILED_STEPS = range(10, 15)
"""Steps of a process that `--profile` records: after compilation and the first few."""


class Diverged(ValueError):
    """A step went wrong and train.on_bad_step = stop; the message says which and what next."""


class Interrupted(Exception):
    """SIGTERM or Ctrl-C: the state is saved, and the same command continues."""


@dataclasses.dataclass
class Pending:
    """A step that was handed to the devices and not read yet."""

    step: int
    metrics: Metrics
    data_wait: float


def train(
    config: Config,
    directory: Path,
    *,
    resume_changed: bool = False,
    init_from: Path | None = None,
    profile: bool = False,
) -> Record:
    """Train to the end, or on from the last checkpoint; returns what result.json holds.

    Raises ValueError for a config that cannot run here or differs from the run's, `Diverged`, or
    `Interrupted`.
    """
    run = RunDirectory(directory)
    with run.locked():
        saved = run.read_config()
        if saved is not None and not resume_changed:
            check_fingerprint(saved, config)
        result = run.read_result()
        if result is not None and not (saved and overrides.differences(saved, config)):
            return result
        experiment = prepare(config, run)
        _check_data(run, facts(experiment))
        checkpoints = Checkpoints(run.checkpoints, config, allow_changed=resume_changed)
        with contextlib.closing(checkpoints):
            state, done_steps = _initial_state(experiment, checkpoints, init_from)
            run.write_config(config, facts(experiment))
            run.result.unlink(missing_ok=True)  # of the run before its config was changed
            experiment.corpus.tokenizer.save(_made(run.tokenizer))
            return _Loop(experiment, checkpoints, done_steps, profile).run(state)


def _initial_state(
    experiment: Experiment, checkpoints: Checkpoints, init_from: Path | None
) -> tuple[TrainState, int]:
    """The state to go on from and the number of steps done: a checkpoint's, or a new one."""
    if checkpoints.steps():
        return checkpoints.restore(experiment.steps.abstract_state)
    state = experiment.steps.init(jax.random.key(experiment.config.seed))
    if init_from is not None:
        source = RunDirectory(init_from)
        abstract = experiment.steps.abstract_state.params
        params = restore_params(source.checkpoints, abstract)
        ema = None if state.ema is None else jax.tree.map(lambda x: x.copy(), params)
        state = state._replace(params=params, ema=ema)
    return state, 0


def _check_data(run: RunDirectory, new: Record) -> None:
    """Refuse to continue on other tokens than the run began with: its order would mean nothing."""
    old = run.read_facts()
    if old is not None and old["data"] != new["data"]:
        raise ValueError(
            f"the corpus has changed since {run.path} began (fingerprint {', '.join(old['data'])} "
            f"then, {', '.join(new['data'])} now); restore it, or start anew in another --workdir"
        )


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


class _Loop:
    """One process's part of a run: the loop and what hangs on it."""

    def __init__(
        self, experiment: Experiment, checkpoints: Checkpoints, done_steps: int, profile: bool
    ):
        config, timetable = experiment.config, experiment.timetable
        self.experiment, self.checkpoints, self.profile = experiment, checkpoints, profile
        self.first_step = done_steps
        self.log = MetricsLog(
            experiment.run.metrics, done_steps, make_mirrors(config, experiment.run.path)
        )
        every = config.tracking.print_every_tokens or timetable.n_tokens // LINES_IN_ALL
        self.report = ProgressReport(timetable.n_steps, done_steps, timetable.due(every))
        self.save_due = timetable.due(config.checkpoint.every_tokens)
        self.validation_due = timetable.due(config.evaluate.every_tokens)
        losses = [loss for _, loss in finite_values(self.log.records, "validation_loss")]
        self.best_validation = min(losses, default=math.inf)
        self.last_validation = losses[-1] if losses else None
        self.flops_per_token = flops.training_flops_per_token(config.model, "palm")
        self.exact_flops_per_token = flops.training_flops_per_token(config.model, "exact")
        self.last_time = self.started = time.monotonic()
        self.seconds_per_token = math.nan

    def run(self, state: TrainState) -> Record:
        finished = False
        try:
            with _stop_signals() as stop:
                state = self._steps(state, stop)
            result = self._finish(state)
            finished = True
            return result
        finally:
            self.report.close()
            self.log.close(finished)

    def _steps(self, state: TrainState, stop: list[int]) -> TrainState:
        experiment, n_steps = self.experiment, self.experiment.timetable.n_steps
        self._say_start()
        pending: Pending | None = None
        batch, data_wait = self._batch(self.first_step)
        for step in range(self.first_step, n_steps):
            with self._profiled(step):
                state, metrics = experiment.steps.train(state, batch, experiment.settings)
            previous, pending = pending, Pending(step, metrics, data_wait)
            if step + 1 < n_steps:
                batch, data_wait = self._batch(step + 1)
            if previous is not None:
                self._read(previous)
            done = step + 1
            validating, saving = self.validation_due(done), self.save_due(done)
            if validating or saving or stop:
                self._read(pending)
                pending = None
                self._milestone(state, done, validating, saving or bool(stop))
            if stop and done < n_steps:
                self.checkpoints.wait()
                raise Interrupted(
                    f"stopped by {signal.Signals(stop[0]).name} after step {done:,} of "
                    f"{n_steps:,}; saved: the same command continues"
                )
        if pending is not None:
            self._read(pending)
        return state

    def _batch(self, step: int):
        """The step's batch on the devices, and the seconds it took to get it there."""
        began = time.monotonic()
        timetable, layout = self.experiment.timetable, self.experiment.layout
        sequences = timetable.batch_sequences(step)
        first = timetable.samples_before(step)
        batch = self.experiment.stream.batch(first, sequences, process_rows(sequences))
        return put_batch(batch, layout), time.monotonic() - began

    def _read(self, pending: Pending) -> None:
        """Wait for a step, write its record, show it, and stop the run if it went wrong."""
        values = {
            name: float(value) for name, value in jax.device_get(pending.metrics)._asdict().items()
        }
        now = time.monotonic()
        seconds, self.last_time = now - self.last_time, now
        step, timetable = pending.step, self.experiment.timetable
        done, tokens = step + 1, timetable.tokens_before(step + 1)
        batch_tokens = tokens - timetable.tokens_before(step)
        bad = bool(values.pop("bad"))
        record: Record = {"step": done, "tokens": tokens}
        record |= finite(values)
        record |= {
            "flops": self.exact_flops_per_token * tokens,
            "tokens_per_second": batch_tokens / seconds,
            "step_seconds": seconds,
            "data_wait_seconds": pending.data_wait,
        }
        peak = self.experiment.peak_flops
        if peak is not None:
            record["mfu"] = self.flops_per_token * batch_tokens / seconds / peak
        if bad:
            record["bad"] = True
        self.log.log(record)
        self._show(step, values["loss"], seconds / batch_tokens)
        if bad:
            self._bad_step(step, values)

    def _show(self, step: int, loss: float, seconds_per_token: float) -> None:
        if step == self.first_step:
            self.report.say(f"first step after {time.monotonic() - self.started:.1f} s")
            return  # compilation is not speed
        mean = self.seconds_per_token
        if math.isnan(mean):
            mean = seconds_per_token
        self.seconds_per_token = mean = 0.95 * mean + 0.05 * seconds_per_token
        peak, timetable = self.experiment.peak_flops, self.experiment.timetable
        mfu = None if peak is None else self.flops_per_token / mean / peak
        left = mean * (timetable.n_tokens - timetable.tokens_before(step + 1))
        self.report.update(
            Progress(step + 1, timetable.n_steps, loss, 1 / mean, mfu, left, self.last_validation)
        )

    def _bad_step(self, step: int, values: dict[str, float]) -> None:
        """Stop, or say that the update was left out."""
        timetable, config = self.experiment.timetable, self.experiment.config
        first, n = timetable.samples_before(step), timetable.batch_sequences(step)
        what = f"loss {values['loss']:.4g}, gradient norm {values['gradient_norm']:.4g}"
        if config.train.on_bad_step == "skip":
            self.report.say(f"step {step + 1:,}: {what}: update left out")
            return
        self.checkpoints.wait()
        saved = self.checkpoints.steps()
        where = f"step {saved[-1]:,}" if saved else "none"
        place = self.experiment.stream.sample_locations(first, 1)[0]
        raise Diverged(
            f"step {step + 1:,} went wrong: {what}, in samples {first:,} to {first + n - 1:,} (the "
            f"first at token {place.first_token:,} of {place.corpus}, epoch {place.epoch}); last "
            f"good checkpoint: {where} in {self.checkpoints.directory}. Lower "
            f"optimizer.learning_rate, set optimizer.clip_norm, or leave such updates out with "
            f"--train.on_bad_step skip"
        )

    def _milestone(self, state: TrainState, done: int, validating: bool, saving: bool) -> None:
        """Validate and save, where due."""
        config = self.experiment.config
        validation = None
        if validating:
            last = done >= self.experiment.timetable.n_steps
            validation = self._validate(state, None if last else config.evaluate.max_sequences)
            tokens = self.experiment.timetable.tokens_before(done)
            self.log.log({"step": done, "tokens": tokens, **finite(validation.record())})
            self.last_validation = validation.loss
            if config.checkpoint.keep_best and validation.loss < self.best_validation:
                saving = True
            self.best_validation = min(self.best_validation, validation.loss)
        if saving:
            self.checkpoints.save(done, state, None if validation is None else validation.loss)
        self.last_time = time.monotonic()

    def _validate(self, state: TrainState, max_sequences: int | None) -> Validation:
        experiment = self.experiment
        return validate(
            experiment.config,
            experiment.steps.evaluate,
            evaluation_params(state),
            experiment.corpus.split("validation"),
            experiment.layout,
            max_sequences,
        )

    def _finish(self, state: TrainState) -> Record:
        """Final validation if the last step had none, loss curve, result.json."""
        experiment, run = self.experiment, self.experiment.run
        records = [r for r in self.log.records if "validation_loss" in r]
        if not records or records[-1]["step"] != experiment.timetable.n_steps:
            self._milestone(state, experiment.timetable.n_steps, validating=True, saving=True)
            records = [r for r in self.log.records if "validation_loss" in r]
        self.checkpoints.wait()
        draw_loss_curve(self.log.records, run.loss_curve, experiment.config.name)
        result = self._result(records[-1])
        write_json(run.result, result)
        return result

    def _result(self, validation: Record) -> Record:
        config, timetable = self.experiment.config, self.experiment.timetable
        steps = [r for r in self.log.records if "step_seconds" in r]
        counts, n_tokens = flops.count_parameters(config.model), timetable.n_tokens
        return {
            "name": config.name,
            "fingerprint": overrides.fingerprint(config),
            "n_params": counts.n_params,
            "n_params_non_embedding": counts.n_params_non_embedding,
            "n_params_matmul": counts.n_params_matmul,
            "n_tokens": n_tokens,
            "n_steps": timetable.n_steps,
            "flops": flops.training_flops(config.model, n_tokens, "exact"),
            "flops_6nd": flops.training_flops(config.model, n_tokens, "6nd"),
            "train_loss": steps[-1]["loss"],
            **{k: v for k, v in validation.items() if k.startswith("validation_")},
            "best_validation_loss": self.best_validation,
            "training_seconds": sum(r["step_seconds"] for r in steps),
            "config": overrides.to_dict(config),
        }

    def _say_start(self) -> None:
        experiment, n_steps = self.experiment, self.experiment.timetable.n_steps
        known = facts(experiment)
        if self.first_step >= n_steps:
            return
        begun = f"continuing after step {self.first_step:,} of" if self.first_step else "training"
        self.report.say(
            f"{begun} {n_steps:,} steps, {experiment.timetable.n_tokens:,} tokens, into "
            f"{experiment.run.path}\n"
            f"model: {known['n_params']:,} parameters ({known['n_params_non_embedding']:,} "
            f"non-embedding), layers {known['layers']}, {known['operands']} products, attention "
            f"{known['attention']}\n"
            f"devices: {known['devices']}, mesh "
            + " x ".join(f"{axis} {size}" for axis, size in known["mesh"].items())
        )

    @contextlib.contextmanager
    def _profiled(self, step: int) -> Iterator[None]:
        """Record a trace of some steps of this process, if asked for: the last one ends it."""
        last_step = self.experiment.timetable.n_steps - 1
        begins = min(self.first_step + PROFILED_STEPS.start, last_step)
        ends = min(self.first_step + PROFILED_STEPS.stop - 1, last_step)
        if self.profile and step == begins:
            jax.profiler.start_trace(str(self.experiment.run.path / "profile"))
        yield
        if self.profile and step == ends:
            jax.profiler.stop_trace()
            self.report.say(f"wrote a trace to {self.experiment.run.path / 'profile'}")


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that holds the signal once SIGTERM or Ctrl-C came; a second Ctrl-C is an exception."""
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, before[number])
        print("\nstopping after this step; saving", file=sys.stderr, flush=True)

    numbers = (int(signal.SIGTERM), int(signal.SIGINT))
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
