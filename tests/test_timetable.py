"""Timetables tile the samples, end within a batch of what was asked for, keep appointments."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.config import Config, ModelConfig, ScheduleConfig, TrainConfig
from gpt_jax.timetable import RAMP_STAGES, Timetable, make_timetable

QUICK = settings(max_examples=100, deadline=None)


def timetable(
    tokens: int, batch: int, seq_len: int, start: int | None = None, ramp: int = 0
) -> Timetable:
    train = TrainConfig(
        tokens=tokens, batch_sequences=batch, ramp_from_sequences=start, ramp_tokens=ramp
    )
    return make_timetable(
        Config(model=ModelConfig(seq_len=seq_len), train=train, schedule=ScheduleConfig())
    )


@st.composite
def timetables(draw) -> tuple[Timetable, TrainConfig]:
    batch, seq_len = draw(st.integers(1, 96)), draw(st.integers(1, 40))
    tokens = draw(st.integers(1, 20 * batch * seq_len))
    ramped = draw(st.booleans())
    train = TrainConfig(
        tokens=tokens,
        batch_sequences=batch,
        ramp_from_sequences=draw(st.integers(1, batch)) if ramped else None,
        ramp_tokens=draw(st.integers(1, 2 * tokens)) if ramped else 0,
    )
    return make_timetable(Config(model=ModelConfig(seq_len=seq_len), train=train)), train


@pytest.mark.smoke
@QUICK
@given(timetables())
def test_steps_tile_the_samples(made):
    table, _ = made
    sample = 0
    for step in range(table.n_steps):
        assert table.samples_before(step) == sample
        assert table.tokens_before(step) == sample * table.seq_len
        sample += table.batch_sequences(step)
    assert table.samples_before(table.n_steps) == sample
    assert table.n_tokens == sample * table.seq_len


@QUICK
@given(timetables())
def test_the_tokens_asked_for_and_less_than_a_batch_more(made):
    table, train = made
    assert table.n_steps > 0
    last_batch = table.batch_sequences(table.n_steps - 1) * table.seq_len
    assert train.tokens <= table.n_tokens < train.tokens + last_batch


@QUICK
@given(timetables())
def test_ramp_rises_in_few_stairs_that_are_multiples_of_the_first(made):
    table, train = made
    sizes = [stage.batch_sequences for stage in table.stages]
    first_steps = [stage.first_step for stage in table.stages]
    assert sizes == sorted(sizes)
    assert first_steps[0] == 0
    assert first_steps == sorted(set(first_steps))
    assert len(sizes) <= RAMP_STAGES + 1
    start = train.ramp_from_sequences
    if start is None:
        assert sizes == [train.batch_sequences]
    else:
        assert all(size % start == 0 for size in sizes if size < train.batch_sequences)
        # A ramp of fewer tokens than stairs may pass over the first.
        assert sizes[0] == start or train.ramp_tokens < RAMP_STAGES
    # Past the ramp's end, and the batch that crosses it, every batch is full.
    for stage in table.stages:
        if stage.first_sample * table.seq_len >= train.ramp_tokens:
            assert stage.batch_sequences == train.batch_sequences


@QUICK
@given(timetables(), st.integers(1, 20_000))
def test_due_once_an_interval_and_at_the_end(made, every):
    table, _ = made
    due = table.due(every)
    assert due(table.n_steps)
    assert not due(0)
    for step in range(1, table.n_steps):
        crossed = table.tokens_before(step) // every - table.tokens_before(step - 1) // every
        assert due(step) == (crossed > 0)


@QUICK
@given(timetables())
def test_zero_means_only_at_the_end(made):
    table, _ = made
    due = table.due(0)
    assert [step for step in range(table.n_steps + 1) if due(step)] == [table.n_steps]


@QUICK
@given(timetables(), st.floats(0, 1.5))
def test_step_after_tokens(made, share):
    table, _ = made
    tokens = share * table.n_tokens
    step = table.step_after_tokens(tokens)
    assert step == table.n_steps or table.tokens_before(step) >= tokens
    assert step == 0 or table.tokens_before(step - 1) < tokens


def test_a_ramp_by_hand():
    # 4, 8, 12 (each for a third of 960 tokens) and 16 sequences of 10 tokens.
    table = timetable(tokens=2000, batch=16, seq_len=10, start=4, ramp=960)
    assert [(s.first_step, s.first_sample, s.batch_sequences) for s in table.stages] == [
        (0, 0, 4),
        (8, 32, 8),
        (12, 64, 12),
        (15, 100, 16),
    ]
    assert table.n_steps == 15 + 7
    assert table.n_tokens == 1000 + 7 * 160
