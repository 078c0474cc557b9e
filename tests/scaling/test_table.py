"""Reading anyone's CSV: mappings, completion, what is left out, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.scaling.best import best_over
from gpt_jax.scaling.catalog import LAWS
from gpt_jax.scaling.table import (
    complete,
    cost_per_parameter_and_token,
    drop_worst,
    make_table,
    pareto,
    read_runs,
    with_steps_min,
    with_values,
)

positive = st.floats(1e3, 1e15)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text(text)
    return path


@pytest.mark.smoke
def test_columns_are_mapped_and_remembered(tmp_path):
    path = write(tmp_path, "size,tokens,val\n1e6,2e7,3.5\n2e6,4e7,3.1\n")
    runs = read_runs(path, columns={"n_params": "size", "n_tokens": "tokens", "loss": "val"})
    np.testing.assert_allclose(runs["flops"], [6 * 1e6 * 2e7, 6 * 2e6 * 4e7])
    assert runs.conventions["n_params"] == "size"
    assert runs.conventions["flops"] == "6 n_params n_tokens"


def test_preferred_convention_is_taken_where_no_mapping_speaks(tmp_path):
    path = write(tmp_path, "n_params,n_params_non_embedding,n_tokens,loss\n9,7,5,3\n")
    prefer = {"n_params": "n_params_non_embedding"}
    assert read_runs(path, prefer=prefer)["n_params"][0] == 7
    assert read_runs(path, prefer=prefer, columns={"n_params": "n_params"})["n_params"][0] == 9
    assert read_runs(path)["n_params"][0] == 9


@pytest.mark.parametrize(
    ("columns", "compute", "source"),
    [
        ("flops,flops_6nd", 6 * 7 * 5, "6 n_params n_tokens"),
        ("flops,flops_kaplan", 12, "flops_kaplan"),
    ],
)
def test_compute_follows_the_convention_of_parameters(tmp_path, columns, compute, source):
    """Kaplan's N leaves embeddings out: a C that counts them is not taken beside it."""
    head = f"n_params,n_params_non_embedding,n_tokens,loss,{columns}"
    path = write(tmp_path, f"{head}\n9,7,5,3,11,12\n")
    runs = read_runs(path, prefer=LAWS["kaplan-nd"].prefer)
    assert (runs["n_params"][0], runs["flops"][0]) == (7, compute)
    assert runs.conventions["flops"] == source
    named = read_runs(path, prefer=LAWS["kaplan-nd"].prefer, columns={"flops": "flops"})
    assert named["flops"][0] == 11
    assert read_runs(path)["flops"][0] == 11


@given(n=positive, d=positive, missing=st.sampled_from(["n_params", "n_tokens", "flops"]))
def test_any_two_of_three_are_enough(n, d, missing):
    values = {"n_params": n, "n_tokens": d, "flops": 6 * n * d}
    rest = {k: [v] for k, v in values.items() if k != missing}
    runs = make_table(loss=[2.0], **rest)
    np.testing.assert_allclose(runs[missing], values[missing], rtol=1e-12)
    assert "/" in runs.conventions[missing] or missing == "flops"


def test_completion_fills_only_the_gaps():
    runs = make_table(
        n_params=[10.0, 10.0], n_tokens=[100.0, np.nan], flops=[7000, 12000], loss=[1, 1]
    )
    np.testing.assert_allclose(runs["n_tokens"], [100, 200])
    np.testing.assert_allclose(runs["flops"], [7000, 12000])
    assert complete(runs).conventions == runs.conventions


def test_diverged_runs_are_left_out_and_counted(tmp_path):
    path = write(tmp_path, "n_params,n_tokens,loss\n1,2,3\n1,2,nan\n1,2,\n1,2,diverged\n")
    runs = with_values(read_runs(path), ["n_params", "loss"])
    assert len(runs) == 1
    assert runs.notes == ("3 rows without loss left out",)


def test_uncooled_losses_never_mix_with_cooled(tmp_path):
    path = write(tmp_path, "n_params,n_tokens,loss,cooled\n1,2,3,true\n1,2,9,false\n1,3,2,True\n")
    runs = read_runs(path)
    assert sorted(runs["loss"]) == [2, 3]
    assert "cooldown" in runs.notes[0]
    assert read_runs(path, where={"cooled": "false"})["loss"].tolist() == [9]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("n_params,loss\n1,x\n", {}, "line 2: loss = 'x' is not a number"),
        ("n_params,loss\n1,2\n-3,2\n", {}, "line 3: n_params = -3; allowed: numbers above 0"),
        ("n_params,loss\n1\n", {}, "line 2 has 1 of the header's 2 cells; loss is missing"),
        ("n_params,val_loss\n1,2\n", {"loss": "val_los"}, "did you mean 'val_loss'"),
        ("n_params,loss\n1,2\n", {"n_parms": "loss"}, "did you mean 'n_params'"),
        ("a,a\n1,2\n", {}, "two columns named a"),
        ("", {}, "is empty"),
        ("n_params,loss\n", {}, "has no rows"),
    ],
)
def test_mistakes_are_named(tmp_path, text, columns, message):
    with pytest.raises(ValueError, match=message):
        read_runs(write(tmp_path, text), columns=columns)


def test_decimal_commas_are_read_where_they_can_be_nothing_else(tmp_path):
    text = "n_params;n_tokens;loss\n20000000;4e8;4,62\n1,5E7;4e8;4,1234\n"
    runs = read_runs(write(tmp_path, text))
    assert runs["loss"].tolist() == [4.62, 4.1234]
    assert runs["n_params"].tolist() == [2e7, 1.5e7]
    assert "3 numbers have a decimal comma" in runs.notes
    for numbers in ("20,000;2,345", "20,000,000;4,62", "20.000;4,62"):
        with pytest.raises(ValueError, match=r"line 2: .*the comma may separate thousands"):
            read_runs(write(tmp_path, f"n_params;loss\n{numbers}\n"))


def test_json_lines_are_a_table_too(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"n_params": 1, "loss": 2.5}\n{"n_params": 3, "loss": null, "run": "x"}\n')
    runs = read_runs(path)
    np.testing.assert_array_equal(runs["loss"], [2.5, np.nan])
    assert runs.labels["run"] == ("", "x")


def test_absent_column_says_how_to_name_it(tmp_path):
    runs = read_runs(write(tmp_path, "n_params,loss\n1,2\n"))
    with pytest.raises(ValueError, match=r"no n_tokens .* --columns n_tokens=COLUMN"):
        with_values(runs, ["n_params", "n_tokens"])


@given(losses=st.lists(st.floats(0.1, 10), min_size=2, max_size=20, unique=True), data=st.data())
def test_drop_worst_drops_the_highest(losses, data):
    count = data.draw(st.integers(0, len(losses) - 1))
    kept = drop_worst(make_table(n_params=np.ones(len(losses)), loss=losses), count)["loss"]
    assert sorted(kept) == sorted(losses)[: len(losses) - count]


def test_drop_worst_is_said_and_bounded():
    runs = make_table(n_params=[1, 1, 1], loss=[3, 1, 2])
    assert "2 highest losses (from 2)" in drop_worst(runs, 2).notes[0]
    with pytest.raises(ValueError, match="--drop-worst 3"):
        drop_worst(runs, 3)


@given(rows=st.lists(st.tuples(positive, st.floats(0.1, 10)), min_size=1, max_size=30))
def test_pareto_keeps_exactly_what_nothing_cheaper_beats(rows):
    flops, loss = (np.array(v) for v in zip(*rows, strict=True))
    kept = pareto(make_table(flops=flops, loss=loss))
    for c, value in zip(kept["flops"], kept["loss"], strict=True):
        assert not ((flops <= c) & (loss < value)).any()
    assert kept["loss"].min() == loss.min()


def test_cost_is_the_tables_own():
    runs = make_table(n_params=[1.0, 2.0], n_tokens=[10.0, 10.0], flops=[70.0, 140.0], loss=[1, 1])
    assert cost_per_parameter_and_token(runs) == pytest.approx(7)
    assert cost_per_parameter_and_token(make_table(n_params=[1.0], loss=[1.0])) == 6


def test_minimum_steps_follow_kaplans_critical_batch():
    """At B = B_crit(L) a run takes twice its minimum of steps (Kaplan et al., eq. 5.4)."""
    loss = 3.0
    critical = 2.1e8 / loss ** (1 / 0.21)
    runs = make_table(n_params=[1e6], loss=[loss], n_steps=[1000.0], batch_tokens=[critical])
    np.testing.assert_allclose(with_steps_min(runs)["steps_min"], 500)


def test_best_setting_has_the_lowest_mean_over_its_seeds():
    """Two seeds of a rate: its mean counts, and both rows stay; an edge of the tried is said."""
    runs = make_table(
        n_params=[1e6] * 5 + [2e6],
        flops=[1e15, 1.001e15, 1e15, 1e15, 1e15, 1e15],
        learning_rate=[1e-3, 1e-3, 2e-3, 2e-3, 4e-3, 1e-3],
        loss=[3.0, 3.4, 3.1, 3.1, 3.5, 9.0],
    )
    kept = best_over(runs, ["learning_rate"])
    assert kept.warnings == ()
    assert kept["loss"].tolist() == [3.1, 3.1, 9.0]
    assert kept.notes[-1] == "the best learning_rate at each of 2 N and C: 3 of 6 runs"
    at_edge = best_over(runs.take(np.array([2, 4])), ["learning_rate"])
    assert "is the lowest or the highest that was tried in 1 of 1 cells" in at_edge.warnings[0]
    assert "n_params = 1e+06 flops = 1e+15" in at_edge.warnings[0]
