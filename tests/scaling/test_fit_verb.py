"""`gpt-jax fit`: text, JSON, warnings, figures, mistakes, start-up."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from planted_laws import TRUTH

from gpt_jax import cli
from gpt_jax.scaling.table import RunTable


def main(arguments: list[str]) -> int:
    """`gpt-jax fit` with these arguments; its exit status."""
    return cli.main(["fit", *arguments])


THREE = "chinchilla-parametric,chinchilla-isoflop,chinchilla-envelope"


def write(path, runs: RunTable, **labels: list[str]) -> str:
    names = [*runs.quantities, *labels]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*runs.quantities.values(), *labels.values(), strict=True))
    return str(path)


@pytest.mark.smoke
def test_json_says_what_was_fitted(tmp_path, scattered, capsys):
    path = write(tmp_path / "runs.csv", scattered(30))
    out = tmp_path / "deep" / "fit.json"
    code = main([path, "--law", "chinchilla-parametric", "--bootstrap", "20", "--json", str(out)])
    document = json.loads(out.read_text())
    assert code == 0
    assert document["law"] == "chinchilla-parametric"
    assert document["n_points"] == 30
    for symbol, value in TRUTH.items():
        assert document["parameters"][symbol] == pytest.approx(value, rel=1e-6)
        assert document["intervals"][symbol]["95"] == pytest.approx([value, value], rel=1e-6)
    assert document["objective"] < 1e-20
    assert document["conventions"]["n_params"] == "n_params"
    assert document["warnings"] == []
    assert "E      1.8172    [1.817, 1.817]" in capsys.readouterr().out


def test_answers_and_drop_worst_are_in_the_output(tmp_path, scattered, capsys):
    path = write(tmp_path / "runs.csv", scattered(40, 0.005))
    out = tmp_path / "fit.json"
    arguments = ["--law", "chinchilla-parametric", "--bootstrap", "50", "--drop-worst", "3"]
    assert main([path, *arguments, "--compute", "1e24", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["n_points"] == 37
    assert "3 highest losses" in document["notes"][0]
    answer = document["answers"][0]
    assert answer["given"] == 1e24
    low, high = answer["n_params"]["95"]
    assert low < answer["n_params"]["value"] < high
    assert answer["nearest_shape"]["n_layers"] > 50
    assert [o["factor"] for o in answer["over_training"]] == [2, 4, 8]
    assert any("times above the largest fitted" in w for w in document["warnings"])
    assert "3 highest losses" in capsys.readouterr().out


def test_nearest_shape_has_the_vocabulary_of_the_runs(tmp_path, scattered):
    """A model of 2 million parameters cannot have GPT-2's vocabulary, whose rows alone are 3."""
    runs = scattered(30)
    path = write(tmp_path / "runs.csv", runs, vocab_size=["512"] * len(runs))
    out = tmp_path / "fit.json"
    arguments = ["--law", "chinchilla-parametric", "--bootstrap", "0", "--n-params", "2e6"]
    assert main([path, *arguments, "--json", str(out)]) == 0
    shape = json.loads(out.read_text())["answers"][0]["nearest_shape"]
    assert shape["vocab_size"] == 512
    assert 1e6 < shape["n_params"] < 4e6


def test_several_laws_are_compared_and_one_without_place_is_said(tmp_path, isoflop_grid, capsys):
    """Two approaches fit, the third has no curves; the parabolas' bias is said."""
    path = write(tmp_path / "runs.csv", isoflop_grid(0.0005, low=0.3, high=30.0))
    out = tmp_path / "fit.json"
    arguments = ["--law", THREE, "--bootstrap", "100", "--json", str(out)]
    assert main([path, *arguments]) == 0
    document = json.loads(out.read_text())
    assert [f["law"] for f in document["fits"]] == THREE.split(",")[:2]
    assert "at least 3 curves" in document["not_fitted"]["chinchilla-envelope"]
    isoflop = document["fits"][1]
    assert isoflop["unbiased_alternative"]["law"] == "chinchilla-parametric"
    assert "not the shape of an IsoFLOP curve" in capsys.readouterr().out


def test_copies_of_rows_change_nothing_and_are_said(tmp_path, scattered, capsys):
    """The same rows twice, once written another way: the intervals stay as wide."""
    runs = scattered(25, 0.01)
    once = write(tmp_path / "once.csv", runs)
    with open(once) as file:
        header, *lines = file.read().splitlines()
    rewritten = [",".join(f"{float(cell):.17e}" for cell in line.split(",")) for line in lines]
    twice = tmp_path / "twice.csv"
    twice.write_text("\n".join([header, *lines, *rewritten]))
    fits = []
    for path in (once, str(twice)):
        out = tmp_path / "fit.json"
        arguments = ["--law", "kaplan-n", "--bootstrap", "20", "--json", str(out)]
        assert main([path, *arguments]) == 0
        fits.append(json.loads(out.read_text()))
    assert fits[0]["intervals"] == fits[1]["intervals"]
    assert fits[1]["n_points"] == 25
    assert any("25 rows are copies" in note for note in fits[1]["notes"])
    assert (
        "25 rows are copies of an earlier one in every column: left out" in capsys.readouterr().out
    )


def test_equal_numbers_of_differently_named_runs_are_warned_of(tmp_path, scattered):
    runs = scattered(12, 0.01)
    values = {k: np.append(v, v[:2]) for k, v in runs.quantities.items()}
    path = write(tmp_path / "runs.csv", RunTable(values, {}, {}), name=[str(i) for i in range(14)])
    out = tmp_path / "fit.json"
    assert main([path, "--law", "kaplan-n", "--bootstrap", "0", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["n_points"] == 14
    assert any("2 rows have the same" in w for w in document["warnings"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("n_params=n_params,n_tokens=flops,flops=flops", "C / (N D) is"),
        ("n_params=n_params,n_tokens=flops", "D / N is"),
        ("n_params=n_tokens,n_tokens=n_params,flops=million", "C / (N D) is"),
    ],
)
def test_a_column_taken_for_another_is_warned_of(tmp_path, scattered, columns, message):
    """FLOPs given as tokens: a fit of N and D runs through, and means nothing."""
    runs = scattered(15, 0.01)
    path = write(tmp_path / "runs.csv", runs, million=list(runs["flops"] / 1e6))
    out = tmp_path / "fit.json"
    arguments = ["--law", "kaplan-d", "--bootstrap", "0", "--json", str(out)]
    assert main([path, *arguments, "--columns", columns]) == 0
    assert any(message in w for w in json.loads(out.read_text())["warnings"])
    assert main([path, *arguments]) == 0
    assert not any(
        "is not what its name says" in w for w in json.loads(out.read_text())["warnings"]
    )


def test_tokens_that_are_flops_are_seen_without_a_column_of_compute(tmp_path, scattered):
    runs = scattered(15, 0.01)
    swapped = RunTable(
        {"n_params": runs["n_params"], "n_tokens": runs["flops"], "loss": runs["loss"]}, {}, {}
    )
    path, out = write(tmp_path / "runs.csv", swapped), tmp_path / "fit.json"
    assert main([path, "--law", "kaplan-d", "--bootstrap", "0", "--json", str(out)]) == 0
    assert any("D / N is" in w for w in json.loads(out.read_text())["warnings"])


def test_unequal_scatter_is_said_and_the_bootstrap_comes_first(tmp_path, scattered, capsys):
    runs = scattered(60)
    noise = np.random.default_rng(0).standard_normal(60) * 0.03 * (1e9 / runs["n_tokens"]) ** 0.4
    uneven = RunTable({**runs.quantities, "loss": runs["loss"] * np.exp(noise)}, {}, {})
    path, out = write(tmp_path / "runs.csv", uneven), tmp_path / "fit.json"
    arguments = ["--law", "chinchilla-parametric", "--json", str(out), "--bootstrap"]
    assert main([path, *arguments, "40"]) == 0
    document = json.loads(out.read_text())
    assert document["interval_method"] == "bootstrap over runs, 40 refits"
    assert document["intervals"] != document["profile_intervals"]
    found = document["unequal_scatter"]
    assert found["variable"] == "n_tokens"
    assert found["thirds"][0] > 2 * found["thirds"][2]
    assert "unequal scatter: residuals of log loss have sd" in capsys.readouterr().out
    assert document["warnings"] == []
    assert main([path, *arguments, "0"]) == 0
    document = json.loads(out.read_text())
    assert "profile_intervals" not in document
    assert any("scatter is not equal over runs" in w for w in document["warnings"])


def test_the_best_learning_rate_at_each_size_and_compute(tmp_path, isoflop_grid):
    """Runs at five rates, of which the middle one is best: as if only these had been made."""
    best = isoflop_grid()
    rates = 1e-3 * 2.0 ** np.arange(-2, 3)
    values = {k: np.repeat(v, 5) for k, v in best.quantities.items()}
    values["learning_rate"] = np.tile(rates, len(best))
    values["loss"] = values["loss"] * (1 + 0.02 * np.log2(values["learning_rate"] / 1e-3) ** 2)
    path = write(tmp_path / "runs.csv", RunTable(values, {}, {}))
    fits = []
    for table, more in ((write(tmp_path / "best.csv", best), []), (path, ["learning_rate"])):
        out = tmp_path / "fit.json"
        given = ["--best-over", *more] if more else []
        arguments = ["--law", "chinchilla-isoflop", "--bootstrap", "0", "--json", str(out)]
        assert main([table, *arguments, *given]) == 0
        fits.append(json.loads(out.read_text()))
    assert fits[1]["parameters"] == fits[0]["parameters"]
    assert "the best learning_rate at each of 40 N and C: 40 of 200 runs" in fits[1]["notes"]


def test_disagreement_beyond_the_intervals_is_warned_of():
    from gpt_jax.scaling.checks import disagreement_warnings

    near = (0.50, np.array([[0.48, 0.52], [0.46, 0.54]]))
    far = (0.73, np.array([[0.71, 0.75], [0.69, 0.77]]))
    assert disagreement_warnings({"one": near, "two": near}) == []
    assert "disagree beyond their 95%" in disagreement_warnings({"one": near, "two": far})[0]


def test_mixed_tokenizers_and_few_values_are_warned_of(tmp_path, scattered):
    path = write(tmp_path / "runs.csv", scattered(20), tokenizer=["gpt2", "char"] * 10)
    out = tmp_path / "fit.json"
    assert main([path, "--law", "kaplan-n", "--bootstrap", "0", "--json", str(out)]) == 0
    assert any("mix tokenizer char, gpt2" in w for w in json.loads(out.read_text())["warnings"])
    two_sizes = scattered(20, 0.01)
    n = np.where(np.arange(20) % 2, 1e8, 1e9)
    table = RunTable(
        {"n_params": n, "n_tokens": two_sizes["n_tokens"], "loss": two_sizes["loss"]}, {}, {}
    )
    path = write(tmp_path / "two.csv", table)
    assert main([path, "--law", "kaplan-nd", "--bootstrap", "0", "--json", str(out)]) == 0
    warnings = json.loads(out.read_text())["warnings"]
    assert any("only 2 values of n_params" in w for w in warnings)


def test_kaplan_laws_take_kaplans_parameters(tmp_path, scattered):
    runs = scattered(12)
    path = write(tmp_path / "runs.csv", runs, n_params_non_embedding=list(runs["n_params"] / 2))
    out = tmp_path / "fit.json"
    main([path, "--law", "kaplan-n", "--bootstrap", "0", "--json", str(out)])
    assert json.loads(out.read_text())["conventions"]["n_params"] == "n_params_non_embedding"
    main([path, "--law", "chinchilla-parametric", "--bootstrap", "0", "--json", str(out)])
    assert json.loads(out.read_text())["conventions"]["n_params"] == "n_params"


def test_frontier_only_fits_the_best_runs(tmp_path, isoflop_grid):
    path = write(tmp_path / "runs.csv", isoflop_grid())
    out = tmp_path / "fit.json"
    base = [path, "--law", "compute-power", "--bootstrap", "0", "--json", str(out)]
    main(base)
    assert any("--frontier-only" in w for w in json.loads(out.read_text())["warnings"])
    main([*base, "--frontier-only"])
    document = json.loads(out.read_text())
    assert document["n_points"] == 5
    assert document["warnings"] == ["5 runs for 3 parameters"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--law", "chinchila-isoflop"], "did you mean 'chinchilla-isoflop'"),
        (
            ["--law", "kaplan-n", "--columns", "loss=a,loss=b"],
            "--columns: loss is given twice, a and b",
        ),
        (
            ["--law", "kaplan-n", "--where", "k=1", "--where", "k=2"],
            "--where: k is given twice, 1 and 2",
        ),
        (["--law", "data-constrained"], "--columns unique_tokens=COLUMN"),
        (["--law", "kaplan-n", "--columns", "loss"], "expected NAME=VALUE"),
        (["--law", "kaplan-n", "--where", "size=1"], "has the columns"),
        (["--law", "kaplan-n", "--drop-worst", "99"], "--drop-worst 99; allowed: 0 to 9"),
        (["--law", "kaplan-n", "--bootstrap", "-1"], "--bootstrap -1"),
        (["--law", "kaplan-n", "--unique-tokens", "5"], "data-constrained does"),
        (
            ["--law", "chinchilla-isoflop", "--delta", "1"],
            "of a formula to runs: it takes no --delta\n",
        ),
        (["--law", "kaplan-n", "--window", "3"], "--window: kaplan-n fits no parabolas"),
        (
            ["--law", "chinchilla-isoflop", "--window", "0.5"],
            "--window 0.5; allowed: factors above",
        ),
        (["--law", "kaplan-n", "--best-over", "loss"], "--best-over loss: loss says which runs"),
        (["--law", "kaplan-n", "--best-over", "learning_rate"], "has no learning_rate"),
        ([], "which law? --law NAME"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(tmp_path, scattered, capsys, arguments, message):
    path = write(tmp_path / "runs.csv", scattered(10))
    assert main([path, *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_figures_are_drawn_as_png_and_svg(tmp_path, isoflop_grid):
    path = write(tmp_path / "runs.csv", isoflop_grid(0.002))
    figures = tmp_path / "figures"
    laws = "chinchilla-parametric,chinchilla-isoflop"
    assert main([path, "--law", laws, "--bootstrap", "20", "--plots", str(figures)]) == 0
    names = {p.name for p in figures.iterdir()}
    for stem in (
        "approaches",
        "chinchilla-parametric-contours",
        "chinchilla-parametric-extrapolation",
        "chinchilla-parametric-loss-against-compute",
        "chinchilla-parametric-residuals",
        "chinchilla-isoflop-profiles",
    ):
        assert {f"{stem}.png", f"{stem}.svg"} <= names
    svg = (figures / "chinchilla-isoflop-profiles.svg").read_text()
    assert "loss (nats per token)" in svg
    assert "parameters N" in svg
    assert not [n for n in names if n.startswith(".")]


@pytest.mark.smoke
def test_scaling_never_imports_jax_and_help_not_even_numpy():
    code = (
        "import sys, gpt_jax.verbs.fit, gpt_jax.verbs.table\n"
        "assert 'numpy' not in sys.modules\n"
        "import gpt_jax.scaling.plots, gpt_jax.scaling.report, gpt_jax.published.tables\n"
        "assert 'jax' not in sys.modules and 'flax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_constraints_on_the_command_line(tmp_path, scattered, capsys):
    runs = scattered(30, 0.005)
    path = write(tmp_path / "runs.csv", runs, trust=list(np.arange(1, 31)))
    out = tmp_path / "fit.json"
    base = [path, "--law", "chinchilla-parametric", "--bootstrap", "20", "--json", str(out)]
    given = ["--fix", "E=1.8,alpha=0.35", "--bounds", "beta=:0.5", "--weights", "trust"]
    assert main([*base, *given, "--objective", "l2", "--space", "linear"]) == 0
    printed, document = capsys.readouterr().out, json.loads(out.read_text())
    assert document["fixed"] == {"E": 1.8, "alpha": 0.35}
    assert "E" not in document["intervals"]
    assert re.search(r"alpha +0.35 +fixed", printed)
    meaning = "half the sum of squares of loss, over runs, weighted by trust (mean 1)"
    assert document["objective_meaning"] == meaning
    assert main([*base, "--tie", "alpha=beta"]) == 0
    printed, document = capsys.readouterr().out, json.loads(out.read_text())
    assert "tied: alpha = beta" in printed
    assert document["parameters"]["alpha"] == document["parameters"]["beta"]
    assert document["parameters"]["a"] == 0.5


def test_groups_on_the_command_line(tmp_path, scattered, capsys):
    """Two corpora that share their exponents: an answer for each, and no warning of a mixture."""
    runs = scattered(40, 0.002)
    second = np.arange(40) % 2 == 1
    loss = runs["loss"] + 0.3 * second
    labels = [("c4", "pile")[k] for k in second.astype(int)]
    table = RunTable({**runs.quantities, "loss": loss}, {}, {})
    path, out = write(tmp_path / "runs.csv", table, corpus=labels), tmp_path / "fit.json"
    base = [path, "--law", "chinchilla-parametric", "--bootstrap", "20", "--json", str(out)]
    figures = ["--plots", str(tmp_path / "figures")]
    given = ["--group", "corpus", "--shared", "alpha,beta,A,B", "--compute", "1e22"]
    assert main([*base, *given, *figures]) == 0
    printed, document = capsys.readouterr().out, json.loads(out.read_text())
    difference = document["parameters"]["E[pile]"] - document["parameters"]["E[c4]"]
    assert difference == pytest.approx(0.3, abs=0.01)
    assert document["groups"] == ["c4", "pile"]
    assert [a["group"] for a in document["answers"]] == ["c4", "pile"]
    assert "compute 1e+22, pile:" in printed
    assert not any("mix corpus" in w for w in document["warnings"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fix", "gamma=1"], "--fix gamma: the law has the parameters N_c, alpha_N"),
        (["--fix", "alpha_N"], "--fix alpha_N: expected NAME=VALUE"),
        (["--fix", "alpha_N=x"], "--fix alpha_N=x: 'x' is not a number"),
        (["--tie", "alpha_N"], "names of at least two parameters"),
        (["--bounds", "alpha_N=0.1"], "expected alpha_N=LOW:HIGH"),
        (["--objective", "l3"], "allowed: huber:X with X above 0, l2, l1"),
        (["--objective", "l2", "--delta", "1"], "say the same twice"),
        (["--shared", "alpha_N"], "between which groups? --group COLUMN says it"),
        (["--group", "corpora"], "has the columns"),
        (["--weights", "trust"], "has the columns"),
    ],
)
def test_mistaken_constraints_end_with_one_line(tmp_path, scattered, capsys, arguments, message):
    path = write(tmp_path / "runs.csv", scattered(10))
    assert main([path, "--law", "kaplan-n", *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_formula_on_the_command_line(tmp_path, scattered, capsys):
    """Approach 3 as text: the same parameters, answers and figures as by its name."""
    path, out = write(tmp_path / "runs.csv", scattered(30, 0.005)), tmp_path / "fit.json"
    base = [path, "--bootstrap", "30", "--compute", "1e22", "--json", str(out)]
    assert main([*base, "--law", "chinchilla-parametric", "--objective", "l2"]) == 0
    built_in = json.loads(out.read_text())
    params = ["--params", "A>0,B>0,0.05<alpha<2,beta>0,E>0"]
    figures = ["--plots", str(tmp_path / "figures")]
    formula = ["--formula", "E + A*N**-alpha + B*D**-beta"]
    assert main([*base, *formula, *params, *figures]) == 0
    document = json.loads(out.read_text())
    for symbol, value in document["parameters"].items():
        assert value == pytest.approx(built_in["parameters"][symbol], rel=1e-4)
        edges = document["intervals"][symbol]["95"]
        assert edges == pytest.approx(built_in["intervals"][symbol]["95"], rel=1e-3)
    best, expected = (d["answers"][0]["n_params"]["value"] for d in (document, built_in))
    assert best == pytest.approx(expected, rel=1e-4)
    assert (tmp_path / "figures" / "formula-contours.svg").is_file()
    assert "L = E + A*N**-alpha + B*D**-beta" in capsys.readouterr().out


def test_a_formula_of_other_columns_and_signs(tmp_path, capsys):
    """A score that may be negative, over a column of the user's own that may be zero."""
    rng = np.random.default_rng(0)
    dose, noise = np.linspace(0, 9, 30), 0.01 * rng.standard_normal(30)
    lines = [f"{d},{0.5 - 2 * np.exp(-d / 2) + e}" for d, e in zip(dose, noise, strict=True)]
    path, out = tmp_path / "scores.csv", tmp_path / "fit.json"
    path.write_text("\n".join(["dose,score", *lines]))
    given = ["--formula", "top - drop*exp(-dose/scale)", "--params", "top,drop>0,scale>0"]
    options = ["--target", "score", "--bootstrap", "50", "--json", str(out)]
    assert main([str(path), *given, *options]) == 0
    document = json.loads(out.read_text())
    for symbol, value in {"top": 0.5, "drop": 2.0, "scale": 2.0}.items():
        assert document["parameters"][symbol] == pytest.approx(value, rel=0.05)
    assert document["objective_meaning"] == "half the sum of squares of score, over runs"
    assert "score is not all above 0" in capsys.readouterr().out


def test_rows_outside_of_a_condition_are_predicted(tmp_path, scattered, capsys):
    runs = scattered(40, 0.002)
    path, out = write(tmp_path / "runs.csv", runs), tmp_path / "fit.json"
    base = [path, "--law", "chinchilla-parametric", "--bootstrap", "40", "--json", str(out)]
    assert main([*base, "--where", "n_params < 2e9"]) == 0
    printed, document = capsys.readouterr().out, json.loads(out.read_text())
    small = runs["n_params"] < 2e9
    assert document["n_points"] == small.sum()
    held_out = document["extrapolation"]
    np.testing.assert_allclose([r["measured"] for r in held_out["runs"]], runs["loss"][~small])
    errors = [r["predicted"] / r["measured"] - 1 for r in held_out["runs"]]
    assert held_out["mean_relative_error"] == pytest.approx(np.abs(errors).mean())
    assert f"held out: the {(~small).sum()} rows outside of --where" in printed
    assert f"fitted to the {small.sum()} of 40 rows where n_params < 2e9" in printed
    assert main([*base, "--where", "N < 2e9 and D >= 1e10", "--where", "L > 2.2"]) == 0
    chosen = small & (runs["n_tokens"] >= 1e10) & (runs["loss"] > 2.2)
    assert json.loads(out.read_text())["n_points"] == chosen.sum()


def test_a_condition_on_text(tmp_path, scattered):
    runs = scattered(30, 0.005)
    corpora = ["c4", "pile", "code"] * 10
    path, out = write(tmp_path / "runs.csv", runs, corpus=corpora), tmp_path / "fit.json"
    base = [path, "--law", "kaplan-n", "--bootstrap", "0", "--json", str(out)]
    for where in ('corpus in ("c4", "pile")', "not corpus == 'code'", "corpus=c4|pile"):
        assert main([*base, "--where", where]) == 0
        assert json.loads(out.read_text())["n_points"] == 20


EXTENSION = """
from gpt_jax.scaling.entries import LawEntry, register
from gpt_jax.scaling.formula_law import formula_law

register(
    LawEntry(
        name="mine",
        kind="loss",
        summary="loss against the logarithm of size",
        source="a note",
        needs=("n_params",),
        build=lambda centers, irreducible: formula_law("c0 + c1*log(N)", "c0,c1<0"),
    )
)
"""


def test_a_law_of_the_users_own_file(tmp_path, scattered, monkeypatch):
    from gpt_jax.scaling.entries import LAWS

    monkeypatch.setattr("gpt_jax.scaling.entry.LAWS", LAWS)
    file, out = tmp_path / "my_laws.py", tmp_path / "fit.json"
    file.write_text(EXTENSION)
    path = write(tmp_path / "runs.csv", scattered(20, 0.005))
    given = ["--extension", str(file), "--law", "mine", "--bootstrap", "0", "--json", str(out)]
    try:
        assert main([path, *given]) == 0
        document = json.loads(out.read_text())
        assert document["source"] == "a note"
        assert set(document["parameters"]) == {"c0", "c1"}
    finally:
        LAWS.pop("mine", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--formula", "A*N"], "--params A>0,alpha>0,E says it"),
        (["--formula", "A*N**k", "--params", "A,k,z"], "the formula has no z"),
        (["--formula", "A*size", "--params", "A"], "column size: .* has the columns"),
        (["--law", "kaplan-n", "--params", "A"], "--params belongs to --formula"),
        (["--law", "kaplan-n", "--where", "size < 3"], "no column size; known: n_params"),
        (["--law", "kaplan-n", "--where", "n_params < 3"], "no row is left to fit"),
        (["--law", "kaplan-n", "--where", "n_params < 'x'"], "is text, and is compared with a"),
        (["--law", "kaplan-n", "--where", "f(n_params) < 1"], "no function f"),
        (["--law", "kaplan-n", "--where", "n_params <"], "not a formula"),
        (["--law", "kaplan-n", "--extension", "none.py"], "no extension none.py"),
        (["--law", "vocabulary"], "--columns unigram_normalised_loss=COLUMN"),
        (["--law", "farseer", "--irreducible", "yes"], "no irreducible term"),
        (["--law", "over-training", "--irreducible", "no"], "--fix E=0 takes it away"),
    ],
)
def test_mistaken_formulas_end_with_one_line(tmp_path, scattered, capsys, arguments, message):
    path = write(tmp_path / "runs.csv", scattered(10))
    assert main([path, *arguments]) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed), printed
    assert printed.count("\n") == 1
