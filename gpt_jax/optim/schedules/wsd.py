"""Warmup, stable, decay: constant, then a cooldown at the end of training."""

import jax.numpy as jnp

from gpt_jax.optim.schedule import Done, ScheduleEntry, Span, towards_final


def shape(span: Span) -> Done:
    """Constant, then over the last `cooldown_tokens` linearly, or as 1 - sqrt(progress), to
    `final_fraction`."""
    schedule = span.schedule
    if not schedule.cooldown_tokens:
        return jnp.ones_like
    cooldown = span.progress(span.n_tokens - schedule.cooldown_tokens, span.n_tokens)

    def at(done: jnp.ndarray) -> jnp.ndarray:
        progress = cooldown(done)
        gone = progress if schedule.cooldown == "linear" else jnp.sqrt(progress)
        return towards_final(schedule.final_fraction, 1 - gone)

    return at


ENTRY = ScheduleEntry(
    name="wsd",
    summary="constant, then a cooldown over cooldown_tokens",
    source="Hägele et al. 2024, arXiv:2405.18392",
    shape=shape,
)
