"""Half a cosine from the peak down to `final_fraction`."""

import jax.numpy as jnp

from gpt_jax.optim.schedule import Done, ScheduleEntry, Span, towards_final


def shape(span: Span) -> Done:
    """From the end of warmup to `decay_tokens`, constant from there (GPT-3: to 10% at 260 of 300
    billion tokens)."""
    schedule = span.schedule
    decay = span.progress(schedule.warmup_tokens, schedule.decay_tokens or span.n_tokens)
    return lambda done: towards_final(
        schedule.final_fraction, 0.5 * (1 + jnp.cos(jnp.pi * decay(done)))
    )


ENTRY = ScheduleEntry(
    name="cosine",
    summary="half a cosine down to final_fraction",
    source="Brown et al. 2020, appendix B",
    shape=shape,
)
