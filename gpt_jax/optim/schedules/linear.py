"""A straight line from the peak down to `final_fraction`."""

from gpt_jax.optim.schedule import Done, ScheduleEntry, Span, towards_final


def shape(span: Span) -> Done:
    """From the end of warmup to `decay_tokens`, constant from there."""
    schedule = span.schedule
    decay = span.progress(schedule.warmup_tokens, schedule.decay_tokens or span.n_tokens)
    return lambda done: towards_final(schedule.final_fraction, 1 - decay(done))


ENTRY = ScheduleEntry(name="linear", summary="linear down to final_fraction", shape=shape)
