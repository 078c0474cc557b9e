"""The learning rate over training, as a function of tokens. Must not import flax.

`ScheduleEntry` says what a shape is; `gpt_jax/optim/schedules/` holds one file for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from gpt_jax.config import Config, ScheduleConfig
from gpt_jax.config import entries as tables
from gpt_jax.config.entries import Entry, Table
from gpt_jax.config.timetable import Timetable

Done = Callable[[jax.Array], jax.Array]
"""Finished steps, float32 -> a number at them."""


@dataclass(frozen=True)
class Span:
    """Training in tokens, for the shape of a schedule."""

    schedule: ScheduleConfig
    timetable: Timetable
    n_tokens: int
    """train.tokens."""
    options: Any
    """The entry's own options, validated."""

    def progress(self, begin: int, end: int) -> Done:
        """From 0 at `begin` to 1 at `end`, in tokens, constant outside; 1 if it is empty."""
        if end <= begin:
            return jnp.ones_like
        return _linear_in_tokens(self.timetable, begin, end, end - begin)

    def tokens_over(self, unit: int) -> Done:
        """Tokens seen, over `unit` of them."""
        return _linear_in_tokens(self.timetable, 0, self.timetable.n_tokens, unit)


@dataclass(frozen=True, kw_only=True)
class ScheduleEntry(Entry):
    """A shape that `schedule.name` can name."""

    shape: Callable[[Span], Done]
    """Finished steps -> the learning rate after warmup, as a fraction of its peak."""


SCHEDULES: Table[ScheduleEntry] = tables.SCHEDULES


def towards_final(final: float, left: jax.Array) -> jax.Array:
    """The fraction at which `left` of the way from 1 down to `final` is still to go."""
    return final + (1 - final) * left


def learning_rate_schedule(config: Config, timetable: Timetable) -> Callable[[Any], jax.Array]:
    """step (integer array, from 0) -> the learning rate of that step, float32, for use under jit.

    The rate is `optimizer.learning_rate` times `schedule_fraction`.
    """
    fraction = schedule_fraction(config, timetable)
    return lambda step: config.optimizer.learning_rate * fraction(step)


def schedule_fraction(config: Config, timetable: Timetable) -> Callable[[Any], jax.Array]:
    """step (integer array, from 0) -> learning rate of that step as a fraction of its peak.

    A linear warmup times the shape of `schedule.name`. The schedule is a function of tokens, read
    at the tokens seen *after* the step: the first step of a warmup has a rate above zero, and the
    last step reaches the end of the decay.
    """
    schedule = config.schedule
    entry = SCHEDULES.find(schedule.name)
    options = entry.read_options(schedule.options, "schedule.options")
    span = Span(schedule, timetable, config.train.tokens, options)
    warmup, shape = span.progress(0, schedule.warmup_tokens), entry.shape(span)

    def fraction(step: Any) -> jax.Array:
        done = jnp.asarray(step, jnp.float32) + 1
        return warmup(done) * shape(done)

    return fraction


def _linear_in_tokens(
    timetable: Timetable, begin: int, end: int, unit: int
) -> Callable[[jax.Array], jax.Array]:
    """Finished steps -> (tokens - begin) / unit, constant outside of [begin, end] (in tokens).

    Tokens are piecewise linear in steps (the batch-size ramp). The knots are computed exactly and
    interpolated over steps: float32 holds a step number, but not 300 billion tokens to the batch.
    """
    first, last = _steps_at(timetable, begin), _steps_at(timetable, end)
    inside = [s.first_step for s in timetable.stages if first < s.first_step < last]
    tokens = [begin, *(timetable.tokens_before(step) for step in inside), end]
    knots = jnp.asarray([first, *inside, last], jnp.float32)
    values = jnp.asarray([(t - begin) / unit for t in tokens], jnp.float32)
    return lambda done: jnp.interp(done, knots, values)


def _steps_at(timetable: Timetable, tokens: int) -> float:
    """Steps, with a fraction, after which this many tokens are seen; the last stage goes on."""
    samples = tokens / timetable.seq_len
    stage = [s for s in timetable.stages if s.first_sample <= samples][-1]
    return stage.first_step + (samples - stage.first_sample) / stage.batch_sequences
