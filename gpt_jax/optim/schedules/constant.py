"""A learning rate that stays at its peak after warmup."""

import jax.numpy as jnp

from gpt_jax.optim.schedule import Done, ScheduleEntry, Span


def shape(span: Span) -> Done:
    return jnp.ones_like


ENTRY = ScheduleEntry(name="constant", summary="stays at its peak", shape=shape)
