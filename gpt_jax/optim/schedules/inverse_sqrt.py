"""The inverse square root of the tokens seen."""

import jax
import jax.numpy as jnp

from gpt_jax.optim.schedule import Done, ScheduleEntry, Span


def shape(span: Span) -> Done:
    """sqrt(warmup_tokens / tokens), not below `final_fraction`; with no warmup the tokens of the
    first step take its place."""
    schedule = span.schedule
    relative = span.tokens_over(schedule.warmup_tokens or span.timetable.tokens_before(1))
    return lambda done: jnp.maximum(
        schedule.final_fraction, jax.lax.rsqrt(jnp.maximum(1.0, relative(done)))
    )


ENTRY = ScheduleEntry(
    name="inverse_sqrt",
    summary="sqrt(warmup_tokens / tokens)",
    source="Raffel et al. 2020, arXiv:1910.10683, section 3.1.2",
    shape=shape,
)
