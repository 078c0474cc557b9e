"""The expected step against what others measured; which measurements speak for a plan."""

import pytest

from gpt_jax.config import Config, overrides
from gpt_jax.cost import calibration
from gpt_jax.cost.calibration import Measured
from gpt_jax.cost.estimate import make_plan
from gpt_jax.cost.topology import parse_topology
from gpt_jax.published.compare import load
from gpt_jax.published.step_times import about_seconds, expected, measured_steps, plan_of


@pytest.mark.parametrize("chip", ["tpu_v5p", "tpu_v5e", "tpu_v6e"])
def test_a_step_that_was_left_out_is_predicted_within_a_tenth(chip):
    """Seconds printed by MaxText and tpu-recipes."""
    rows = measured_steps()
    errors = [calibration.held_out(row, rows) / row.seconds - 1 for row in rows if row.chip == chip]
    assert len(errors) >= 3
    assert max(map(abs, errors)) < 0.1


def test_nothing_was_faster_than_its_bound():
    for row in load("step_times")["rows"]:
        assert plan_of(row).bound_seconds < float(row["seconds"])


def test_seconds_of_the_gpu_rows_follow_from_what_was_printed():
    """Llama 2 7B, 4 x 4096 tokens a GPU: 6 FLOPs a weight but the table's, 12 L T D for scores."""
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11_008) + 4096 * 32_000
    a_token = 6 * weights + 12 * 32 * 4096 * 4096
    printed = {8: 492, 16: 422, 32: 407, 64: 409, 128: 375}
    for n, tflops in printed.items():
        (row,) = [r for r in load("step_times")["rows"] if r["name"] == f"llama2_7b_h100_{n}"]
        assert float(row["seconds"]) == pytest.approx(4 * 4096 * a_token / tflops / 1e12, rel=1e-3)
        assert plan_of(row).topology.n_chips == n


ROWS = (
    Measured("a", "tpu_v5p", "dots", 1.0, 2.0),
    Measured("b", "tpu_v5p", "dots", 1.0, 8.0),
    Measured("c", "tpu_v5p", "full", 1.0, 3.0),
    Measured("d", "h100", "dots", 2.0, 5.0),
)


def test_the_factor_is_the_geometric_mean_of_the_same_chip_and_kind():
    found = calibration.factor("tpu_v5p", "none", ROWS)
    assert (found.mean, found.least, found.most) == pytest.approx((4, 2, 8))
    assert found.shown == "programs of this kind took 2.00 to 8.00 times the closed form: 2 rows"
    assert calibration.held_out(ROWS[0], ROWS) == pytest.approx(8)
    assert calibration.held_out(ROWS[2], ROWS) is None


@pytest.mark.parametrize(
    ("chip", "remat", "mean", "of"),
    [
        ("tpu_v5p", "offload", 3, ""),
        ("h100", "full", 2.5, "no row of h100 is of this kind; its others"),
        ("b200", "full", 2.5, "no row is of b200; those of h100"),
        ("tpu_v4", "full", (2 * 8 * 3) ** (1 / 3), "no row is of v4; those of v5p"),
    ],
)
def test_where_no_row_is_of_the_kind_it_is_said_whose_are_taken(chip, remat, mean, of):
    found = calibration.factor(chip, remat, ROWS)
    assert (found.mean, found.of) == (pytest.approx(mean), of)


def test_what_no_row_has_is_said():
    config = overrides.override(
        Config(), {"model.n_experts": 4, "train.batch_sequences": 8, "train.tokens": 8 * 1024}
    )
    plan = make_plan(config, parse_topology("v5p:2x2x1"))
    assert expected(plan).of == "no row has experts; others of this chip and kind"
    assert about_seconds(plan) == expected(plan).mean * plan.in_turn_seconds
