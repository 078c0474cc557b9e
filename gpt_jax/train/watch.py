"""A single run as it is shown while it trains: how it starts, its progress, what went wrong."""

import math
import time

from gpt_jax.config.timetable import make_timetable
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.tracking import Progress, ProgressReport
from gpt_jax.train.experiment import facts
from gpt_jax.train.lanes import Lane

LINES_IN_ALL = 20
"""Progress lines of a whole run where there is no terminal, unless the config says otherwise."""


class Watch:
    """The progress of one run, on the terminal or as lines."""

    def __init__(self, lane: Lane, first_step: int):
        config, timetable = lane.experiment.config, lane.experiment.timetable
        self.lane, self.first_step = lane, first_step
        every = config.tracking.print_every_tokens or timetable.n_tokens // LINES_IN_ALL
        self.report = ProgressReport(
            timetable.n_steps, first_step, timetable.due(every), is_writer()
        )
        self.started = time.monotonic()
        self.seconds_per_token = math.nan

    def say(self, lane: Lane, text: str) -> None:
        """A line."""
        self.report.say(text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.report.close()

    def step(self, lane: Lane, step: int, loss: float, seconds: float) -> None:
        """Show a step that was read; `seconds` is how long it took."""
        timetable = lane.experiment.timetable
        if step == self.first_step:
            self.report.say(f"first step after {time.monotonic() - self.started:.1f} s")
            return  # compilation is not speed
        batch_tokens = timetable.tokens_before(step + 1) - timetable.tokens_before(step)
        mean = self.seconds_per_token
        if math.isnan(mean):
            mean = seconds / batch_tokens
        self.seconds_per_token = mean = 0.95 * mean + 0.05 * seconds / batch_tokens
        peak, recorder = lane.experiment.peak_flops, lane.recorder
        mfu = None if peak is None else recorder.flops_per_token / mean / peak
        left = mean * (timetable.n_tokens - timetable.tokens_before(step + 1))
        self.report.update(
            Progress(
                step + 1,
                timetable.n_steps,
                loss,
                1 / mean,
                mfu,
                left,
                recorder.last_validation,
            )
        )

    def start(self) -> None:
        """Say what is trained, on what and how, and from which step on."""
        experiment, config = self.lane.experiment, self.lane.experiment.config
        timetable, known = experiment.timetable, facts(experiment)
        if self.first_step >= timetable.n_steps:
            return
        say = self.report.say
        if self.first_step and timetable != make_timetable(config):
            n_tokens = timetable.tokens_before(self.first_step)
            sample = timetable.samples_before(self.first_step)
            say(
                f"{n_tokens:,} tokens were trained in other batches or to another length: they "
                f"count as they were, and sample {sample:,} is next"
            )
        begun = f"continuing after step {self.first_step:,} of" if self.first_step else "training"
        say(
            f"{begun} {timetable.n_steps:,} steps, {timetable.n_tokens:,} tokens, into "
            f"{experiment.run.path}\n"
            f"model: {known['n_params']:,} parameters ({known['n_params_non_embedding']:,} "
            f"non-embedding), layers {known['layers']}, {known['operands']} products, attention "
            f"{known['attention']}, loss of {known['loss']}, up to "
            f"{known['steps_per_dispatch']} steps a call\n"
            f"devices: {known['devices']}, mesh "
            + " x ".join(f"{axis} {size}" for axis, size in known["mesh"].items())
        )
        if config.base:
            say(f"begins from {config.base} (weights {known['base']})")
        if config.distill.teacher:
            say(f"learns from {config.distill.teacher} (weights {known['teacher']})")
        if config.adapt.method != "full":
            say(f"trained: {known['n_params_trained']:,} parameters ({config.adapt.method})")
        if known["n_params_active"] != known["n_params"]:
            say(f"experts: {known['n_params_active']:,} parameters compute a token")
        if warning := experiment.model.execution.kernel.warning:
            say(warning)
