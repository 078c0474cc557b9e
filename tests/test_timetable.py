"""Timetables tile the samples, end within a batch of what was asked for, keep appointments."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.config import Config, ModelConfig, ScheduleConfig, TrainConfig, overrides
from gpt_jax.config.timetable import RAMP_STAGES, Timetable, make_timetable

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


def test_a_run_goes_on_in_other_batches():
    """100 steps of 8 samples of 32 tokens, then batches of 16 up to 102,400 tokens: by hand, 150
    more of 512 tokens from sample 800 on."""
    config = overrides.override(
        Config(),
        {"model.seq_len": 32, "train.batch_sequences": 16, "train.tokens": 102_400},
    )
    table = make_timetable(config, (100, 25_600))
    assert table.n_steps == 250
    assert table.n_tokens == 102_400
    assert table.samples_before(100) == 800
    assert table.samples_before(101) == 816
    assert table.tokens_before(100) == 25_600
    assert table.batch_sequences(99) == 8
    assert table.batch_sequences(100) == 16
    assert table.step_after_tokens(25_600) == 100
    due = table.due(51_200)
    assert [step for step in range(101, 251) if due(step)] == [150, 250]
    assert make_timetable(config, (0, 0)) == make_timetable(config)


def test_a_run_that_goes_on_in_its_own_batches_has_its_own_timetable():
    """Also in the middle of a ramp."""
    ramp = {"train.ramp_from_sequences": 2, "train.ramp_tokens": 64 * 32}
    config = overrides.override(
        Config(),
        {"model.seq_len": 32, "train.batch_sequences": 8, "train.tokens": 400 * 32, **ramp},
    )
    table = make_timetable(config)
    for done in range(1, table.n_steps + 1):
        again = make_timetable(config, (done, table.tokens_before(done)))
        assert again.n_steps == table.n_steps
        for step in range(done, table.n_steps + 1):
            assert again.samples_before(step) == table.samples_before(step)
            assert again.tokens_before(step) == table.tokens_before(step)


def test_a_run_goes_on_with_longer_samples_or_is_over():
    config = overrides.override(
        Config(), {"model.seq_len": 48, "train.batch_sequences": 1, "train.tokens": 480}
    )
    table = make_timetable(config, (3, 96 + 32))  # 128 tokens are 2 2/3 samples: the next is 3
    assert table.samples_before(3) == 3
    assert table.tokens_before(3) == 128
    assert table.tokens_before(4) == 128 + 48
    assert table.n_tokens == 128 + 8 * 48
    over = make_timetable(config, (7, 1000))
    assert (over.n_steps, over.n_tokens) == (7, 1000)
