"""The papers' tables beside ours: what matches, what differs, what cannot be compared."""

import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax import cli
from gpt_jax.published.compare import compare, half_unit, load, load_rows, text
from gpt_jax.published.fits import Fit, Fits, read_fits, verdict_of_fit
from gpt_jax.published.tables import TABLES, build_table
from gpt_jax.scaling.catalog import LAWS
from gpt_jax.scaling.fit import estimate_uncertainty, fit_law
from gpt_jax.scaling.table import make_table


def main(arguments: list[str]) -> int:
    """`gpt-jax table` with these arguments; its exit status."""
    return cli.main(["table", *arguments])


ADDED = {"oddities", "table_1", "table_2_intervals", "table_A3_approach_3", "table_A4"}
"""Blocks of our data files that were read from the papers besides the shared ones."""


def verdicts(name: str, column: str = "", fits: Fits | None = None) -> dict[str, str]:
    """{row: verdict without its tolerance} of the cells whose name begins with `column`."""
    rows = build_table(name, fits or Fits()).rows
    return {
        r.label: c.verdict.partition(" (+-")[0]
        for r in rows
        for c in r.cells
        if c.name.startswith(column)
    }


@pytest.mark.parametrize("name", TABLES)
def test_every_number_has_one_of_the_verdicts(name):
    comparison = build_table(name, Fits())
    cells = [c for row in comparison.rows for c in row.cells]
    assert cells
    for cell in cells:
        assert cell.verdict.startswith(("matches (+-", "differs by ", "not comparable because "))
        assert cell.printed
        assert "not comparable" in cell.verdict or cell.ours != "missing"
    assert comparison.paper in text(comparison)


@given(digits=st.integers(1, 10**6), exponent=st.integers(-8, 12), shift=st.floats(-0.49, 0.49))
def test_what_rounds_to_the_printed_digits_matches(digits, exponent, shift):
    printed = Decimal(digits).scaleb(exponent)
    unit = 10.0**exponent
    verdict = compare("x", printed, float(printed) + shift * unit).verdict
    assert verdict == f"matches (+-{unit / 2:.3g})"
    assert compare("x", printed, float(printed) + 0.52 * unit).verdict.startswith("differs by +")
    assert half_unit(printed) == pytest.approx(unit / 2)


@pytest.mark.smoke
def test_sizes_match_the_releases_and_differ_from_gpt2s_print():
    assert set(verdicts("gpt2-table-2", "as released").values()) == {"matches"}
    assert verdicts("gpt2-table-2", "as printed")["117M"] == "differs by +6.36%"
    assert set(verdicts("gpt1-architecture", "parameters").values()) == {"matches"}
    assert set(verdicts("gpt3-table-d1").values()) == {"matches"}


def test_gpt3s_oddities_show_and_are_said():
    heads, width = verdicts("gpt3-table-2.1", "heads"), verdicts("gpt3-table-2.1", "width")
    assert [k for k, v in heads.items() if v != "matches"] == ["XL"]
    assert [k for k, v in width.items() if v != "matches"] == ["13B"]
    assert "5140" in text(build_table("gpt3-table-2.1", Fits()))


def test_chinchilla_tables_against_closed_forms():
    flops = verdicts("chinchilla-table-3")
    assert [k for k, v in flops.items() if v != "matches"] == ["67B on 1500B tokens"]
    a9 = verdicts("chinchilla-table-a9", "with relative")
    assert len(build_table("chinchilla-table-a9", Fits()).rows) == 50
    assert sum(v == "matches" for v in a9.values()) >= len(a9) - 2
    assert verdicts("chinchilla-table-2", "a from the printed")["3. parametric fit"] == "matches"


def test_kaplan_table_1_matches_our_counts_but_for_biases_and_norms():
    assert verdicts("kaplan-table-1", "FLOPs")["Total (Non-Embedding)"] == "matches"
    assert verdicts("kaplan-table-1", "parameters")["Feedforward"] == "matches"
    assert "0.14" in verdicts("kaplan-table-1", "parameters")["Total (Non-Embedding)"]
    # A query of 1024 sees 512.5 tokens on average with itself, 512 as printed.
    assert verdicts("kaplan-table-1", "FLOPs")["Attention: Mask"] == "differs by +0.0977%"
    assert "d_embd" in text(build_table("kaplan-table-1", Fits()))


def test_chinchillas_flops_are_met_without_what_appendix_f_says_besides():
    assert set(verdicts("chinchilla-table-a4", "without").values()) == {"matches"}
    assert "matches" not in verdicts("chinchilla-table-a4", "appendix").values()
    assert verdicts("chinchilla-70b", "with relative")["80 layers, width 8192"] == "matches"


def test_table_a3_shows_the_misprint_and_the_rounded_law():
    flops = verdicts("chinchilla-table-a3", "3: FLOPs")
    assert flops["175B"] == "differs by +900%"
    assert flops["1B"] == "matches"
    assert "matches" not in verdicts("chinchilla-table-a3", "3: tokens").values()
    assert "a tenth of 6 N D" in text(build_table("chinchilla-table-a3", Fits()))


ODDITIES = {
    "gpt2-table-2": "124,439,808",
    "gpt2-table-3": "124,439,808",
    "gpt3-table-2.1": "24 heads of 128",
    "gpt3-table-d1": "1,320M and 12,850M",
    "chinchilla-table-2": "not reproduced by the paper's own data",
    "chinchilla-approach-3": "not reproduced by the paper's own data",
    "chinchilla-table-a3": "not reproduced by the paper's own data",
    "kaplan-table-1": "Kaplan counts non-embedding parameters",
    "kaplan-power-laws": "Kaplan counts non-embedding parameters",
}


@pytest.mark.parametrize(("name", "oddity"), ODDITIES.items())
def test_known_oddities_are_said_where_the_numbers_are_shown(name, oddity):
    assert oddity in text(build_table(name, Fits()))


def ours(law: str, n_params: str, flops: str, corpus: str = "") -> Fit:
    """A fit whose every parameter is 0.5, known to 0.02."""
    symbols = ("a", "b", "alpha", "beta", "E", "A", "B", "alpha_N", "alpha_C", "C_c", "N_c")
    return Fit(
        law=law,
        parameters=dict.fromkeys(symbols, 0.5),
        intervals={symbol: {"95": (0.48, 0.52)} for symbol in symbols},
        n_points=24,
        conventions={"n_params": n_params, "flops": flops},
        labels={"corpus": [corpus]} if corpus else {},
    )


def test_exponents_are_compared_only_under_the_papers_count_of_parameters():
    def cells(n_params: str, flops: str) -> dict[str, str]:
        fit = ours("chinchilla-isoflop", n_params, flops)
        rows = build_table("chinchilla-table-2", Fits({fit.law: fit})).rows
        return {f"{r.label}: {c.name}": c.verdict for r in rows for c in r.cells}

    counted_all = cells("n_params", "flops")
    without = cells("n_params_non_embedding", "flops_kaplan")
    assert counted_all["2. IsoFLOP profiles: a"] == "agrees within 6.1%"
    assert without["2. IsoFLOP profiles: a"].startswith("not comparable because N counts")
    assert counted_all["Kaplan et al.: a of chinchilla-isoflop"].startswith("not comparable")
    assert without["Kaplan et al.: a of chinchilla-isoflop"] == "differs by -31.5%"
    mixed = cells("n_params_non_embedding", "flops")
    assert "C includes embeddings" in mixed["Kaplan et al.: a of chinchilla-isoflop"]


def test_scales_are_compared_only_on_the_papers_corpus():
    for corpus, expected in (("", "not said"), ("stories", "ours stories"), ("MassiveText", "")):
        fit = ours("chinchilla-parametric", "n_params", "flops", corpus)
        cells = build_table("chinchilla-approach-3", Fits({fit.law: fit})).rows[0].cells
        found = {c.name: c for c in cells}
        assert found["alpha"].verdict == "differs by +47.1%"
        if expected:
            assert expected in found["E"].verdict
            assert found["E"].ours == "0.5 [0.48, 0.52]"
        else:
            assert found["E"].verdict.startswith("differs by")


def test_kaplans_compute_leaves_embeddings_out():
    for flops, n_params, comparable in (
        ("flops_kaplan", "n_params_non_embedding", True),
        ("6 n_params n_tokens", "n_params_non_embedding", True),
        ("6 n_params n_tokens", "n_params", False),
        ("flops", "n_params_non_embedding", False),
    ):
        fit = ours("kaplan-c", n_params, flops)
        found = verdicts("kaplan-power-laws", "alpha_C", Fits({fit.law: fit}))
        assert ("not comparable" not in found["L(C), naive fixed batch"]) == comparable


def test_our_fits_stand_beside_the_papers(tmp_path, capsys):
    """A fit differs where its 95% interval leaves the printed value out; one that warns never
    agrees."""
    fit = {
        "law": "chinchilla-isoflop",
        "parameters": {"a": 0.50, "b": 0.60},
        "intervals": {"a": {"95": [0.48, 0.52]}, "b": {"95": [0.58, None]}},
        "n_points": 24,
        "conventions": {"n_params": "n_params", "flops": "flops"},
        "labels": {"tokenizer": ["gpt2"]},
        "warnings": ["only 3 computes"],
    }
    path = tmp_path / "fits.json"
    path.write_text(json.dumps({"fits": [fit], "not_fitted": {"chinchilla-envelope": "no curves"}}))
    out = tmp_path / "table.json"
    assert main(["chinchilla-table-2", "--fits", str(path), "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert [c["verdict"] for c in document["rows"][1]["cells"]] == [
        "inside our interval of +-4% (the fit warns: only 3 computes)",
        "differs by +17.6% (the fit warns: only 3 computes)",
    ]
    assert document["rows"][0]["cells"][0]["verdict"] == "not comparable because no curves"
    printed = capsys.readouterr().out
    assert "0.5 [0.48, 0.52]" in printed
    assert "0.49 [0.462, 0.534]" in printed
    assert "24 runs; N = n_params (all parameters); C = flops; tokenizer gpt2" in printed
    assert "warning: only 3 computes" in printed
    missing = verdicts("chinchilla-table-2", "a")["2. IsoFLOP profiles"]
    assert "needs a fit of ours" in missing


@pytest.mark.parametrize(
    ("printed", "ours", "edges", "warnings", "verdict"),
    [
        (0.28, 20.0, (None, None), (), "inside our interval, which is open (too wide to tell)"),
        (0.28, 20.0, (0.2, None), (), "inside our interval, which is open (too wide to tell)"),
        (410.7, 1.8e146, (1.0, 2e150), (), "inside our interval of +-1e+06% (too wide to tell)"),
        (0.46, 0.35, (0.209, 0.541), (), "inside our interval of +-55% (too wide to tell)"),
        (0.46, 0.48, (0.43, 0.53), (), "agrees within 15%"),
        (
            0.46,
            0.48,
            (0.43, 0.53),
            ("few runs: 5",),
            "inside our interval of +-10% (the fit warns: few runs)",
        ),
        (0.46, 0.991, (0.9, 1.1), (), "differs by +115%"),
        (
            0.5,
            0.52,
            (0.13, 0.43),
            ("few: x", "bad: y"),
            "differs by +4% (our value lies outside of its own interval: cannot tell)",
        ),
        (
            0.5,
            0.7,
            (0.6, 0.8),
            ("few: x", "bad: y"),
            "differs by +40% (the fit warns: few and 1 more)",
        ),
        (0.46, 0.46, None, (), "differs by +0% (no interval: too little known to tell)"),
    ],
)
def test_a_fit_agrees_only_where_much_is_known(printed, ours, edges, warnings, verdict):
    assert verdict_of_fit(printed, ours, edges, warnings) == verdict


def test_older_files_give_the_intervals_that_hold_under_unequal_scatter(tmp_path):
    """Files of before had the profile's intervals first and the bootstrap's beside them."""
    fit = {
        "law": "chinchilla-parametric",
        "parameters": {"a": 0.5},
        "intervals": {"a": {"95": [0.49, 0.51]}},
        "bootstrap_intervals": {"a": {"95": [0.45, 0.55]}},
        "interval_method": "profile likelihood",
        "n_points": 24,
        "conventions": {},
        "labels": {},
        "warnings": [],
    }
    path = tmp_path / "fits.json"
    path.write_text(json.dumps(fit))
    assert read_fits(path).by_law["chinchilla-parametric"].intervals["a"]["95"] == [0.45, 0.55]


def test_runs_are_fitted_and_compared_in_one_step(tmp_path, capsys):
    """A planted law with alpha = beta, so that a = 0.5: approach 2 finds it, close to its 0.49."""
    lines = ["size,C,val"]
    for compute in (1e18, 4e18, 1.6e19, 6.4e19):
        best = (compute / 6) ** 0.5 / 4
        for factor in (0.3, 0.5, 0.8, 1.25, 2, 3.3):
            n = best * factor
            loss = 1.7 + 400 / n**0.34 + 400 * 16**0.34 / (compute / 6 / n) ** 0.34
            lines.append(f"{n},{compute},{loss}")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    columns = "n_params=size,flops=C,loss=val"
    assert main(["chinchilla-table-2", "--runs", str(path), "--columns", columns]) == 0
    printed = capsys.readouterr().out
    assert "N = size (taken to count all parameters)" in printed
    assert "not comparable because chinchilla-envelope needs at least 3 curves" in printed
    isoflop = next(line for line in printed.splitlines() if line.startswith("2. IsoFLOP"))
    assert "  0.5 [0.499, 0.501]  " in isoflop
    assert "differs by +2.04%" in isoflop


def test_besiroglus_refit_is_recovered_from_runs_simulated_with_it():
    """240 runs of the sizes of Table A9, 1% errors: every printed value in our 95% interval."""
    refit = {k: float(v) for k, v in load("besiroglu2024")["refit"].items()}
    rng = np.random.default_rng(0)
    sizes = rng.choice([row["params"] for row in load_rows("chinchilla_models")], 240).astype(float)
    tokens = np.exp(rng.uniform(np.log(5e8), np.log(3e11), 240))
    mean = refit["E"] + refit["A"] / sizes ** refit["alpha"] + refit["B"] / tokens ** refit["beta"]
    law = LAWS["chinchilla-parametric"]
    exact = fit_law(law, make_table(n_params=sizes, n_tokens=tokens, loss=mean))
    assert exact.parameters == pytest.approx(refit, rel=1e-6)
    noisy = mean * np.exp(0.01 * rng.standard_normal(240))
    fit = fit_law(law, make_table(n_params=sizes, n_tokens=tokens, loss=noisy))
    intervals = estimate_uncertainty(fit, 0, 0).profile
    assert all(low <= refit[k] <= high for k in refit for low, high in intervals[k][1:])


def test_every_table_names_laws_that_there_are():
    for table in TABLES.values():
        assert set(table.laws) <= set(LAWS)


def test_mistakes_are_named(tmp_path, capsys):
    assert main(["gpt3-table-d2"]) == 2
    assert "did you mean 'gpt3-table-d1'" in capsys.readouterr().err
    assert main(["chinchilla-table-2", "--fits", str(tmp_path / "none.json")]) == 2
    assert "no such file" in capsys.readouterr().err
    bad = tmp_path / "bad.json"
    bad.write_text("[1]")
    assert main(["chinchilla-table-2", "--fits", str(bad)]) == 2
    assert "not a JSON file of" in capsys.readouterr().err


def test_options_without_a_place_are_refused(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text("n_params,n_tokens,loss\n1e6,1e8,3\n")
    assert main(["gpt2-table-2", "--runs", str(path)]) == 2
    assert "compares no fits" in capsys.readouterr().err
    assert main(["chinchilla-table-2", "--columns", "loss=val"]) == 2
    assert "--runs, which is not given" in capsys.readouterr().err


def test_without_a_name_the_tables_are_listed(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TABLES)
    assert lines[1].endswith("ready to run                    experiments/gpt1")


def test_a_table_as_markdown(capsys):
    assert main(["gpt3-table-d1", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("**GPT-3, Table D.1: training compute** (Brown et al. 2020")
    assert "| Small | parameters (M) | 125 | 125.226 | matches (+-0.5) |" in lines
    assert lines[-1].startswith("- state: reproduced here (experiments/gpt3)")


def test_data_equal_the_shared_papers(shared_data):
    """Cell by cell: the numbers were copied, not typed."""
    papers = shared_data.parent / "papers"
    if not papers.is_dir():
        pytest.skip("no published numbers beside the shared data")
    names = {"chinchilla", "gpt1", "gpt2", "gpt3", "gpt4", "kaplan2020"}
    for path in (papers / f"{name}.json" for name in sorted(names)):
        ours = load(path.stem)
        theirs = json.loads(path.read_text(), parse_float=Decimal, parse_int=Decimal)
        assert {k: ours[k] for k in theirs} == theirs, path.name
        assert set(ours) - set(theirs) <= ADDED
    models = (papers / "chinchilla_models.csv").read_text().splitlines()
    ours_models = load_rows("chinchilla_models")
    assert [list(row.values()) for row in ours_models] == [
        [int(v) for v in line.split(",")] for line in models[1:]
    ]


def scored_run(tmp_path, n_params, *results):
    place = tmp_path / str(n_params) / "evaluation"
    place.mkdir(parents=True)
    content = {"run": f"run{n_params}", "n_params": n_params, "results": list(results)}
    (place / "results.json").write_text(json.dumps(content))
    return str(place.parent)


def test_scores_of_runs_stand_in_gpt2s_table(tmp_path, capsys):
    """A released size in its own row: rounded as printed, or off by so much; of another size, what
    there is; of a part of the items, nothing."""
    released = scored_run(
        tmp_path,
        124439808,
        {"task": "lambada", "perplexity_per_word": 35.128, "accuracy_no_stop_words": 0.4},
        {"task": "cbt_cn", "accuracy": 0.8765, "limit": 10},
        {"text": "wiki.test.tokens", "detokenize": "wikitext", "perplexity_per_word": 30.0},
    )
    tiny = scored_run(tmp_path, 5000, {"task": "cbt_ne", "accuracy": 0.25})
    command = ["gpt2-table-3", "--results", released, "--results", tiny]
    assert main([*command, "--json", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    rows = {r["label"]: r["cells"] for r in json.loads((tmp_path / "out.json").read_text())["rows"]}
    cells = {c["name"]: (c["ours"], c["verdict"]) for c in rows["117M: run124439808"]}
    assert cells["LAMBADA ppl"] == ("35.128", "matches (+-0.005)")
    assert cells["LAMBADA acc"] == ("40", "differs by -13%")
    assert cells["CBT-CN acc"][1].endswith("only the first 10 items were scored (--limit)")
    assert cells["CBT-NE acc"][1].endswith("gpt-jax eval --tasks cbt_ne")
    assert cells["WikiText2 ppl"] == ("30", "differs by +2.01%")
    assert cells["WikiText103 ppl"][0] == "missing", "the file's name has no 103"
    assert [c["name"] for c in rows["run5000, 5,000 parameters"]] == ["CBT-NE acc"]
    assert "345M" in said
    assert main(["gpt3-table-d1", "--results", tiny]) == 2
    assert "compares no evaluations" in capsys.readouterr().err
    assert main(["gpt2-table-3", "--results", str(tmp_path)]) == 2
    assert "no results there; make them: gpt-jax eval" in capsys.readouterr().err


def test_gpt3s_batches_and_rates_are_those_of_the_configs():
    for column, odd in (("batch (tokens)", {"175B": "differs by -1.7%"}), ("learning rate", {})):
        found = verdicts("gpt3-table-2.1", column)
        assert {row: verdict for row, verdict in found.items() if verdict != "matches"} == odd
