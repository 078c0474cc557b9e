"""How many steps a call takes: by the FLOPs of a step, by measuring, and by what is due."""

import pytest

from gpt_jax.config import Config, overrides
from gpt_jax.parallel.dispatch import MEASURED_CALLS, MOST_STEPS, Pace, capacity

SMALL = {"model.n_layers": 2, "model.d_model": 64, "model.n_heads": 2, "model.vocab_size": 256}


def config(**changes) -> Config:
    return overrides.override(
        Config(), SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    )


@pytest.mark.smoke
def test_capacity_follows_from_the_size_of_a_step_or_the_config():
    assert capacity(config(model__seq_len=64), "cpu", 1) == MOST_STEPS
    assert capacity(config(model__seq_len=64, train__batch_sequences=4096), "cpu", 8) == 1
    assert capacity(config(model__seq_len=64, train__batch_sequences=4096), "gpu", 1) == MOST_STEPS
    large = config(model__n_layers=24, model__d_model=2048, train__batch_sequences=64)
    assert capacity(large, "tpu", 8) == 1
    assert capacity(large, "tpu", 4096) == MOST_STEPS  # of each device
    for steps in (1, 5):
        assert capacity(config(compute__steps_per_dispatch=steps), "cpu", 1) == steps


@pytest.mark.parametrize(("step_seconds", "expected"), [(1e-3, 16), (0.02, 5), (3.0, 1)])
def test_pace_fills_a_tenth_of_a_second(step_seconds, expected):
    pace = Pace(config(), 16)
    for seconds in [30.0] + [step_seconds] * MEASURED_CALLS:  # the first call compiles
        assert pace.steps == 1
        pace.took(seconds)
    assert pace.steps == expected
    pace.took(100.0)  # a pause changes nothing
    assert pace.steps == expected


def test_asked_for_steps_are_not_measured():
    assert Pace(config(compute__steps_per_dispatch=5), 5).steps == 5
    assert Pace(config(), 1).steps == 1
