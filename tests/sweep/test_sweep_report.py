"""`gpt-jax sweep report`: what it writes and prints."""

import argparse
import json

import pytest
from simulated_sweep import SimulatedSweep, add_at

from gpt_jax import cli
from gpt_jax.sweep.report import add_arguments, find_directory, run, write_report


def test_everything_is_written(report):
    names = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    assert {"runs.csv", "fits.json", "index.html"} <= names
    drawn = {name.removeprefix("figures/") for name in names if name.startswith("figures/")}
    for stem in ("loss-curves", "final-loss-against-compute", "approaches"):
        assert {f"{stem}.png", f"{stem}.svg"} <= drawn
    assert any(name.startswith("chinchilla-isoflop-profiles") for name in drawn)
    assert not [name for name in names if "/." in name or name.startswith(".")]


def test_fits_say_what_they_rest_on(report):
    document = json.loads((report / "fits.json").read_text())
    assert [found["law"] for found in document["fits"]] == [
        "chinchilla-isoflop",
        "chinchilla-parametric",
    ]
    assert "unique_tokens" in document["not_fitted"]["data-constrained"]
    assert document["size_exponents"].keys() == {"chinchilla-isoflop", "chinchilla-parametric"}
    assert len(document["size_exponents"]["chinchilla-isoflop"]["95"]) == 2
    assert document["commits of the runs"] == "0123456789ab"
    assert len(document["fingerprint of the trials"]) == 12


def test_the_verb_fit_gives_the_same_numbers(report, tmp_path):
    """Every number of the page can be had again by one command on the file beside it."""
    out = tmp_path / "fit.json"
    for place, law in enumerate(("chinchilla-isoflop", "chinchilla-parametric")):
        arguments = ["--law", law, "--bootstrap", "50", "--json", str(out)]
        assert cli.main(["fit", str(report / "runs.csv"), *arguments]) == 0
        assert (
            json.loads(out.read_text())
            == json.loads((report / "fits.json").read_text())["fits"][place]
        )


def test_a_sweep_that_has_not_begun_has_a_report(tmp_path, capsys):
    sweep = SimulatedSweep(tmp_path)
    add_at(sweep, 1e11, 16)
    page = write_report(sweep, "new", None, 0)
    printed = capsys.readouterr().out
    assert "new: 1 pending" in printed
    assert "chinchilla-isoflop: not fitted: no trial is done yet" in printed
    assert "No run has anything to draw yet." in page.read_text()
    assert (tmp_path / "report" / "runs.csv").read_text().count("\n") == 2


def test_a_summary_is_printed(tmp_path, capsys):
    sweep = SimulatedSweep(tmp_path)
    for width in (16, 24):
        sweep.finish(add_at(sweep, 1e11, width))
    sweep.fail(add_at(sweep, 1e11, 32), "diverged", "loss nan")
    write_report(sweep, "small", ["chinchilla-parametric"], 0)
    printed = capsys.readouterr().out
    assert "small: 2 done, 1 diverged" in printed
    assert "diverged: flops-1e11-width-32: loss nan" in printed
    assert printed.count(" ± 0.0031  N ") == 2
    assert "chinchilla-parametric: not fitted: 2 values of n_params" in printed
    assert f"open {tmp_path / 'report' / 'index.html'}" in printed


def test_the_directory_is_found(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    assert find_directory(str(tmp_path), None) == tmp_path
    assert find_directory("experiments/cpu_scaling/sweep.py", None).as_posix() == "runs/cpu_scaling"
    assert find_directory("grids/rates.py", None).as_posix() == "runs/rates"
    assert find_directory("grids/rates.py", str(tmp_path)) == tmp_path


def test_mistakes_are_said(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(["--bootstrap", "-1"])
    with pytest.raises(ValueError, match="--bootstrap -1; allowed: 0 or more"):
        write_report(SimulatedSweep(tmp_path), "one", None, arguments.bootstrap)
    arguments.sweep, arguments.workdir, arguments.rest = "s.py", None, ["--seed", "1"]
    with pytest.raises(ValueError, match="takes no overrides, got --seed 1"):
        run(arguments)
