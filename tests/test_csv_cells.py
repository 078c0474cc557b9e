"""Texts in CSV files are no formulas, and come back as they were."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.scaling.table import read_runs
from gpt_jax.storage.csv_cells import as_csv, protect, restore

FORMULAS = [
    "=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "=HYPERLINK(\"http://x\")",
    "'=1", "\uff1d1", "-", "=", "--help", "+inf+1", "-1_000",
]  # fmt: skip
PLAIN = ["a", "", "a=b", "1e-3", "-0.5", "+3", "-1.5e+20", "-inf", "nan", "'a'", "it's", "a-b"]


def read(text):
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_begins_with_an_apostrophe(text):
    (_, (cell,)) = read(as_csv([text], [[text]]))
    assert cell == "'" + text
    assert restore(cell) == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_cells_stay(text):
    assert protect(text) == text
    assert restore(text) == text


@given(st.text(alphabet="'=+-@ \t\na1.e", max_size=6))
def test_every_text_comes_back(text):
    assert restore(protect(text)) == text


def test_numbers_and_what_is_missing():
    assert as_csv(["a", "b", "c"], [[-1.5, None, -3]]) == "a,b,c\n-1.5,,-3\n"


def test_runs_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "runs.csv"
    rows = [["=cmd|' /C calc'!A0", 10.0, 20.0, 3.5], ["-run", 20.0, 30.0, 3.25]]
    path.write_text(as_csv(["corpus", "n_params", "n_tokens", "loss"], rows))
    assert "\n'=cmd" in path.read_text()
    runs = read_runs(path)
    assert runs.labels["corpus"] == ("=cmd|' /C calc'!A0", "-run")
    assert len(read_runs(path, where={"corpus": "-run"})) == 1
    assert runs["loss"].tolist() == [3.5, 3.25]
