"""The papers' tables beside ours: what matches, what differs, what cannot be compared."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.published.compare import compare, half_unit, load, text
from gpt_jax.published.tables import TABLES, build_table
from gpt_jax.published.verb import main


def verdicts(name: str, column: str = "", fits: dict | None = None) -> dict[str, str]:
    """{row: verdict} of the cells whose name begins with `column`."""
    rows = build_table(name, fits or {}).rows
    return {r.label: c.verdict for r in rows for c in r.cells if c.name.startswith(column)}


@pytest.mark.parametrize("name", TABLES)
def test_every_number_has_one_of_the_three_verdicts(name):
    comparison = build_table(name, {})
    cells = [c for row in comparison.rows for c in row.cells]
    assert cells
    for cell in cells:
        assert cell.verdict == "matches" or cell.verdict.startswith(
            ("differs by ", "not comparable because ")
        )
        assert cell.printed
        assert ("not comparable" in cell.verdict) == (cell.ours == "missing")
    assert comparison.paper in text(comparison)


@given(digits=st.integers(1, 10**6), exponent=st.integers(-8, 12), shift=st.floats(-0.49, 0.49))
def test_what_rounds_to_the_printed_digits_matches(digits, exponent, shift):
    printed = Decimal(digits).scaleb(exponent)
    unit = 10.0**exponent
    assert compare("x", printed, float(printed) + shift * unit).verdict == "matches"
    assert compare("x", printed, float(printed) + 0.52 * unit).verdict.startswith("differs by +")
    assert half_unit(printed) == pytest.approx(unit / 2)


@pytest.mark.smoke
def test_sizes_match_the_releases_and_differ_from_gpt2s_print():
    assert set(verdicts("gpt2-table-2", "as released").values()) == {"matches"}
    assert verdicts("gpt2-table-2", "as printed")["117M"] == "differs by +6.36%"
    assert set(verdicts("gpt1-architecture").values()) == {"matches"}
    assert set(verdicts("gpt3-table-d1").values()) == {"matches"}


def test_gpt3s_oddities_show_and_are_said():
    heads, width = verdicts("gpt3-table-2.1", "heads"), verdicts("gpt3-table-2.1", "width")
    assert [k for k, v in heads.items() if v != "matches"] == ["XL"]
    assert [k for k, v in width.items() if v != "matches"] == ["13B"]
    assert "5140" in text(build_table("gpt3-table-2.1", {}))


def test_chinchilla_tables_against_closed_forms():
    flops = verdicts("chinchilla-table-3")
    assert [k for k, v in flops.items() if v != "matches"] == ["67B on 1500B tokens"]
    a9 = verdicts("chinchilla-table-a9", "with relative")
    assert len(build_table("chinchilla-table-a9", {}).rows) == 50
    assert sum(v == "matches" for v in a9.values()) >= len(a9) - 2
    assert verdicts("chinchilla-table-2", "a from")["3. parametric fit"] == "matches"


def test_kaplan_table_1_matches_our_counts_but_for_biases_and_norms():
    assert verdicts("kaplan-table-1", "FLOPs")["Total (Non-Embedding)"] == "matches"
    assert verdicts("kaplan-table-1", "parameters")["Feedforward"] == "matches"
    assert "0.14" in verdicts("kaplan-table-1", "parameters")["Total (Non-Embedding)"]


def test_our_fits_stand_beside_the_papers(tmp_path, capsys):
    """A fit matches where its 95% interval holds the printed value, and differs elsewhere."""
    fit = {
        "law": "chinchilla-isoflop",
        "parameters": {"a": 0.50, "b": 0.60},
        "intervals": {"a": {"95": [0.48, 0.52]}, "b": {"95": [0.58, None]}},
    }
    path = tmp_path / "fits.json"
    path.write_text(json.dumps({"fits": [fit]}))
    out = tmp_path / "table.json"
    assert main(["chinchilla-table-2", "--fits", str(path), "--json", str(out)]) == 0
    row = json.loads(out.read_text())["rows"][1]
    assert [c["verdict"] for c in row["cells"]] == ["matches", "differs by +17.6%"]
    assert "0.5 [0.48, 0.52]" in capsys.readouterr().out
    assert (
        "no fit of ours" in verdicts("chinchilla-table-2", "a")["1. minimum over training curves"]
    )


def test_mistakes_are_named(tmp_path, capsys):
    assert main(["gpt3-table-d2"]) == 2
    assert "did you mean 'gpt3-table-d1'" in capsys.readouterr().err
    assert main(["chinchilla-table-2", "--fits", str(tmp_path / "none.json")]) == 2
    assert "no such file" in capsys.readouterr().err
    bad = tmp_path / "bad.json"
    bad.write_text("[1]")
    assert main(["chinchilla-table-2", "--fits", str(bad)]) == 2
    assert "not a JSON file of" in capsys.readouterr().err


def test_without_a_name_the_tables_are_listed(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.split() == list(TABLES)


def test_data_equal_the_shared_papers(shared_data):
    """The numbers were copied, not typed: only oddities and Kaplan's Table 1 were added."""
    papers = shared_data.parent / "papers"
    if not papers.is_dir():
        pytest.skip("no published numbers beside the shared data")
    for path in papers.glob("*.json"):
        ours = load(path.stem)
        theirs = json.loads(path.read_text(), parse_float=Decimal, parse_int=Decimal)
        assert {k: ours[k] for k in theirs} == theirs, path.name
        assert set(ours) - set(theirs) <= {"oddities", "table_1"}
