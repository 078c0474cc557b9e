"""The coordinate check: what it measures, and that it tells the parametrizations apart."""

import argparse
import csv
import json

import numpy as np
import pytest

from gpt_jax.config import Config, ModelConfig, OptimizerConfig, overrides
from gpt_jax.steps.coord_check import (
    ACTIVATIONS,
    Row,
    Setting,
    check,
    default_models,
    random_batch,
    resize,
)
from gpt_jax.verbs import coord_check as coord_check_verb

QUICK = Setting(n_steps=2, n_seeds=1, n_sequences=2, seq_len=16)
COMPLETEP = {"parametrization": "completep", "base_d_model": 32, "base_n_layers": 2}


def config(**changes) -> Config:
    """Like configs/quickstart.py, but small."""
    sizes = {"vocab_size": 64, "seq_len": 32, "n_layers": 2, "d_model": 32, "n_heads": 2}
    kinds = {"bias": False, "norm": "rmsnorm", "activation": "relu_squared", "position": "rotary"}
    start = {"init_matrices": "fan_in", "init_residual": "zero"}
    return Config(
        name="small",
        model=ModelConfig(**{**sizes, **kinds, **start, **changes}),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )


def coord_check(*arguments: str) -> int:
    """The verb, in this process."""
    parser = argparse.ArgumentParser()
    coord_check_verb.add_arguments(parser)
    parsed, parsed.rest = parser.parse_known_args(arguments)
    return coord_check_verb.run(parsed)


def slopes(rows: list[Row], activation: str) -> list[float]:
    """Of the changes."""
    found = [row.slope for row in rows if row.activation == activation and row.step]
    assert None not in found
    return [slope for slope in found if slope is not None]


def test_completep_passes_over_widths_and_depths_and_is_drawn(tmp_path, capsys):
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps(overrides.to_dict(config(**COMPLETEP))))
    size = ["--steps", "2", "--seeds", "1", "--sequences", "2", "--seq-len", "16"]
    command = [str(saved), *size, "--widths", "32,128", "--depths", "2,8"]
    assert coord_check(*command, "--out", str(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert "small, completep with adamw: PASS" in printed
    assert "FAIL" not in printed
    with (tmp_path / "out" / "sizes.csv").open() as file:
        records = list(csv.DictReader(file))
    assert len(records) == 2 * 2 * 6 * 3  # axes, models, activations, moments
    assert {r["passes"] for r in records} == {"true"}
    assert (tmp_path / "out" / "sizes.png").stat().st_size > 20_000
    assert "change after 2 steps" in (tmp_path / "out" / "sizes.svg").read_text()


def test_standard_fails_over_widths():
    """A step of Adam changes what a matrix puts out in proportion to its inputs."""
    rows = check(config(), "width", (32, 128), QUICK)
    assert min(slopes(rows, "mlp")) > 0.6
    assert min(slopes(rows, "stream")) > 0.6
    assert not all(row.passes for row in rows)
    assert ": FAIL: " in coord_check_verb.text(config(), rows)


def test_mup_fails_over_depths():
    """Changes of all layers agree, and add up."""
    small = config(parametrization="mup", base_d_model=32)
    rows = check(small, "depth", (2, 8), QUICK)
    assert min(slopes(rows, "stream")) > 0.6
    assert not all(row.passes for row in rows)


@pytest.mark.smoke
def test_a_row_passes_inside_of_its_band():
    row = Row("width", "mlp", 1, (1, 2), (1.0, 1.0), 0.0, (-0.25, 0.25))
    assert row.passes
    assert not row._replace(slope=0.3).passes
    assert not row._replace(slope=-0.3).passes
    assert not row._replace(sizes=(1.0, float("nan")), slope=None).passes
    assert not row._replace(sizes=(0.0, 1.0), slope=None).passes
    assert row._replace(sizes=(0.0, 0.0), slope=None).passes
    assert row._replace(slope=2.0, allowed=None).passes
    assert not row._replace(sizes=(1.0, float("inf")), allowed=None).passes


def test_the_measured_slope_is_that_of_the_sizes(monkeypatch):
    def as_planted(config: Config, setting: Setting):
        size = config.model.d_model**0.5
        return {
            name: size * np.ones((setting.n_seeds, 1 + setting.n_steps)) for name in ACTIVATIONS
        }

    monkeypatch.setattr("gpt_jax.steps.coord_check.measure", as_planted)
    rows = check(config(), "width", (32, 64, 128), QUICK)
    assert [row.slope for row in rows] == pytest.approx([0.5] * len(rows))
    assert not any(row.passes for row in rows)


def test_what_diverges_fails(monkeypatch):
    lost = {name: np.full((1, 3), np.nan) for name in ACTIVATIONS}
    monkeypatch.setattr("gpt_jax.steps.coord_check.measure", lambda *_: lost)
    rows = check(config(), "depth", (2, 4), QUICK)
    assert not any(row.passes for row in rows)
    assert "nan" in coord_check_verb.text(config(), rows)


def test_resizing_keeps_heads_and_proportions():
    grouped = config(n_heads=4, n_kv_heads=2, ffn_size=80, dropout_residual=0.1, **COMPLETEP)
    wide = resize(grouped, "width", 96).model
    assert (wide.n_heads, wide.n_kv_heads, wide.d_head, wide.d_ff) == (12, 6, 8, 240)
    assert (wide.n_layers, wide.base_d_model, wide.dropout_residual) == (2, 32, 0.0)
    deep = resize(config(**COMPLETEP | {"n_layers": 8, "d_model": 64}), "depth", 6).model
    assert (deep.n_layers, deep.d_model) == (6, 32)
    assert resize(config(n_kv_heads=1), "width", 64).model.n_kv_heads == 1


def test_default_models():
    assert default_models(config(), "width") == (64, 128, 256, 512)
    assert default_models(config(d_model=96), "width") == (96, 192, 384, 768)
    assert default_models(config(), "depth") == (2, 4, 8)
    assert default_models(config(**COMPLETEP | {"base_n_layers": 4}), "depth") == (4, 8, 16)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--widths", "32"], "--widths needs two or more different values"),
        (["--widths", "32,40"], "a model of width 40 would have 2.5 heads"),
        (["--depths", "2,4", "--optimizer.name", "nadam"], "optimizer.name = nadam; allowed"),
    ],
)
def test_mistakes_are_one_line(given, said, tmp_path):
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps(overrides.to_dict(config())))
    with pytest.raises(ValueError, match=said) as caught:
        coord_check(str(saved), *given)
    assert "\n" not in str(caught.value)


def test_the_batch_is_text_shifted_by_one():
    tokens, targets = random_batch(config(), 3, 10)
    assert tokens.shape == targets.shape == (3, 10)
    np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])
    again, _ = random_batch(config(), 3, 10)
    np.testing.assert_array_equal(tokens, again)
