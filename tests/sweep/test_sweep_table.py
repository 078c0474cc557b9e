"""runs.csv: every convention, every trial, what is missing, and points before the decay."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_sweep import (
    TRUTH,
    WIDTHS,
    SimulatedSweep,
    add_at,
    make_config,
    trunks_sweep,
)

from gpt_jax import cli
from gpt_jax.config import ModelConfig
from gpt_jax.cost import flops
from gpt_jax.scaling.catalog import KAPLAN_CONVENTION
from gpt_jax.scaling.table import read_runs
from gpt_jax.sweep.table import (
    FINAL,
    TRUNK,
    cell,
    columns,
    gather,
    make_rows,
    trunk_validations,
    write_runs,
)


def table_of(sweep, path):
    """The rows as a reader of the file gets them."""
    trials = gather(sweep)
    write_runs(path, make_rows("simulated", trials), columns(trials))
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def isoflop(report):
    """runs.csv of 4 budgets by 6 sizes and three trials without a result, and its rows."""
    with (report / "runs.csv").open(newline="") as file:
        return report / "runs.csv", list(csv.DictReader(file))


def test_a_row_holds_every_convention(tmp_path):
    """Counted by hand: 1 layer, width 8, 2 heads, 16 positions, 32 ids, everything with biases."""
    sweep = SimulatedSweep(tmp_path / "one")
    config = make_config(
        "one", 8, 2_050, model__n_layers=1, model__seq_len=16, model__vocab_size=32
    )
    assert isinstance(config.model, ModelConfig)
    sweep.finish(sweep.add(config, {"seed": 0}))
    (row,) = table_of(sweep, tmp_path / "runs.csv")
    kernels = 4 * 8 * 8 + 2 * 8 * 32
    non_embedding = kernels + 4 * 8 + 32 + 8 + 3 * 16
    n_params = non_embedding + (32 + 16) * 8
    n_tokens = 17 * 8 * 16  # 2,050 rounded up to batches of 8 x 16
    assert int(row["n_params"]) == n_params
    assert int(row["n_params_non_embedding"]) == non_embedding
    assert int(row["n_params_matmul"]) == kernels + 32 * 8
    assert int(row["n_tokens"]) == n_tokens
    assert int(row["n_steps"]) == 17
    assert int(row["batch_tokens"]) == 128
    padded = config.model.padded_vocab_size
    exact = 3 * (2 * (kernels + padded * 8) + 4 * 8 * 16) * n_tokens
    assert float(row["flops"]) == exact
    assert float(row["flops_6nd"]) == 6 * n_params * n_tokens
    assert float(row["flops_kaplan"]) == 6 * non_embedding * n_tokens
    for convention in ("exact_causal", "kaplan_table_1", "chinchilla", "palm"):
        want = flops.training_flops(config.model, n_tokens, convention)
        assert float(row[f"flops_{convention}"]) == want
    assert row["fingerprint"] == sweep.entries[0].fingerprint
    assert row["commit"] == "0123456789ab"
    assert (row["cooled"], row["tokenizer"], row["vocab_size"]) == ("true", "byte", "32")
    assert row["corpus"] == "stdlib (feedc0ffee00)"
    assert list(row).count("seed") == 1


def test_losses_are_the_results(isoflop):
    path, rows = isoflop
    trials = path.parent.parent / "trials"
    done = [row for row in rows if row["state"] == "done"]
    assert len(done) == 24
    for row in done:
        result = json.loads((trials / row["run"] / "result.json").read_text())
        assert float(row["loss"]) == result["validation_loss"]
        assert float(row["loss_standard_error"]) == result["validation_loss_standard_error"]
        assert float(row["bits_per_byte"]) == result["validation_bits_per_byte"]
        assert float(row["train_loss"]) == result["train_loss"]
        assert float(row["training_seconds"]) == result["training_seconds"]
        assert int(row["model.d_model"]) in WIDTHS


def test_trials_without_a_result_have_a_state_and_no_loss(isoflop):
    _, rows = isoflop
    rest = {row["state"]: row for row in rows if row["state"] != "done"}
    assert rest.keys() == {"diverged", "failed", "pending"}
    for row in rest.values():
        for name in ("loss", "loss_standard_error", "bits_per_byte", "train_loss"):
            assert row[name] == ""
        assert int(row["n_params"]) > 0
        assert row["cooled"] == "true"
    assert rest["pending"]["commit"] == ""


def test_a_loss_that_is_not_finite_is_missing(tmp_path):
    sweep = SimulatedSweep(tmp_path / "one")
    entry = add_at(sweep, 1e11, 16)
    sweep.finish(entry)
    path = sweep.run(entry.name).result
    path.write_text(json.dumps(json.loads(path.read_text()) | {"validation_loss": "nan"}))
    (row,) = table_of(sweep, tmp_path / "runs.csv")
    assert row["loss"] == ""


def test_fit_reads_it_without_options(isoflop, tmp_path, capsys):
    """Names and units are known; the planted law is found; what is missing is said."""
    path, _ = isoflop
    out = tmp_path / "fit.json"
    arguments = ["--law", "chinchilla-parametric", "--bootstrap", "0", "--json", str(out)]
    assert cli.main(["fit", str(path), *arguments]) == 0
    document = json.loads(out.read_text())
    assert document["n_points"] == 24
    assert "3 rows without loss left out" in document["notes"]
    for symbol, value in TRUTH.items():
        low, high = document["intervals"][symbol]["95"]
        assert low < value < high
    assert not [w for w in document["warnings"] if "mix" in w]
    assert "chinchilla-parametric" in capsys.readouterr().out
    runs = read_runs(path, prefer=KAPLAN_CONVENTION)
    assert runs.conventions["n_params"] == "n_params_non_embedding"


def test_trunks_yield_points_before_the_decay(tmp_path):
    path = tmp_path / "runs.csv"
    rows = table_of(trunks_sweep(tmp_path / "trunks"), path)
    points = [row for row in rows if row["point"] == TRUNK]
    ends = [row for row in rows if row["point"] == FINAL]
    assert len(points) == 5 * 7, "8 validations of each trunk; the last is the end"
    assert len(ends) == 5 * 3
    assert all(row["cooled"] == "false" and row["run"].startswith("trunk") for row in points)
    assert [row["cooled"] for row in ends] == ["false", "true", "true"] * 5
    assert {float(row["loss"]) for row in points}.isdisjoint({float(r["loss"]) for r in ends})
    first = points[0]
    assert float(first["flops_6nd"]) == 6 * int(first["n_params"]) * int(first["n_tokens"])
    assert int(first["n_tokens"]) == int(first["n_steps"]) * int(first["batch_tokens"])


def test_no_fit_mixes_cooled_and_uncooled(tmp_path):
    path = tmp_path / "runs.csv"
    table_of(trunks_sweep(tmp_path / "trunks"), path)
    cooled = read_runs(path)
    assert len(cooled) == 10
    assert set(cooled.labels["cooled"]) == {"true"}
    assert "40 rows before their cooldown left out" in cooled.notes[0]
    uncooled = read_runs(path, where={"cooled": "false"})
    assert len(uncooled) == 40
    assert set(uncooled.labels["cooled"]) == {"false"}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"schedule__name": "cosine"}, []),
        ({"schedule__name": "constant"}, [16, 32, 48]),
        ({"schedule__name": "constant", "schedule__warmup_tokens": 100_000}, [32, 48]),
        ({"schedule__name": "wsd", "schedule__cooldown_tokens": 131_072}, [16, 32]),
        ({"schedule__name": "wsd", "schedule__cooldown_tokens": 190_000}, [16]),
    ],
)
def test_points_lie_at_the_full_learning_rate(tmp_path, changes, kept):
    """Validations at steps 16, 32, 48 and 64 of 4,096 tokens each."""
    sweep = SimulatedSweep(tmp_path)
    config = make_config("run", 16, 64 * 4096, train__batch_sequences=64, **changes)
    sweep.finish(sweep.add(config, {}), cooled=False, validations=4)
    (trial,) = gather(sweep)
    assert [record["step"] for record in trunk_validations(trial)] == kept


@given(st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none())
def test_cells_read_back(value):
    text = cell(value)
    if value is None:
        assert text == ""
    elif isinstance(value, bool):
        assert json.loads(text) is value
    else:
        assert type(value)(text) == value
        assert np.float64(text) == value or isinstance(value, int)
