"""A power of the tokens seen: `inverse_sqrt` with another exponent."""

import jax.numpy as jnp

from gpt_jax.config.fields import PositiveFloat, section
from gpt_jax.optim.schedule import Done, ScheduleEntry, Span


@section
class Options:
    """Fields that the shape adds to those of `schedule`."""

    exponent: PositiveFloat = 0.51
    """The learning rate falls as tokens to minus this (table 1 of the paper: about 0.51)."""


def shape(span: Span) -> Done:
    """(warmup_tokens / tokens) ** exponent, not below `final_fraction`."""
    schedule = span.schedule
    relative = span.tokens_over(schedule.warmup_tokens or span.timetable.tokens_before(1))
    return lambda done: jnp.maximum(
        schedule.final_fraction, jnp.maximum(1.0, relative(done)) ** -span.options.exponent
    )


ENTRY = ScheduleEntry(
    name="power",
    summary="(warmup_tokens / tokens) ** exponent",
    source="Shen et al. 2024, arXiv:2408.13359, equation 2",
    options=Options,
    shape=shape,
)
