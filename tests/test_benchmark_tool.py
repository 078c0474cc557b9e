"""tools/benchmark.py: its arithmetic on made-up measurements, and one tiny case from end to end."""

import dataclasses
import importlib
import json
import types
from pathlib import Path

import pytest


@pytest.fixture
def tool(repository: Path, monkeypatch):
    """The modules of the tool, as the command sees them; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(repository / "tools"))
    names = ("benchmark", "benchmark_cases", "benchmark_report")
    modules = types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    assert modules.benchmark.__file__ == str(repository / "tools" / "benchmark.py")
    return modules


def made(case, mode, round_, seconds, work=1024, **others):
    key = {"case": case, "mode": mode, "round": round_}
    return key | {"seconds": seconds, "work": work, "peak_bytes": 2**30, **others}


def record(*measurements, **failures):
    machine = {"processor": "one", "cores": 2, "memory_gib": 8, "system": "any", "python": "3"}
    return {
        "machine": machine, "commit": "abc", "seconds": 1.0,
        "measurements": list(measurements), "failures": failures,
    }  # fmt: skip


# --- times --------------------------------------------------------------------------------------


def test_the_first_dispatch_is_no_steady_step(tool):
    steady, chunk_means = tool.benchmark_cases.steady, tool.benchmark_cases.chunk_means
    assert steady([9.0, 1.0, 1.1, 1.2], 1) == [1.0, 1.1, 1.2]
    assert steady([9.0, 1.0, 1.1, 1.2], 2) == [1.1, 1.2]
    ten_in_a_dispatch = [2.0] * 10 + [1.0] * 10 + [1.5] * 10
    assert steady(ten_in_a_dispatch, 4) == [1.0] * 10 + [1.5] * 10
    assert chunk_means([1.0, 3.0, 2.0, 6.0], 2) == [2.0, 4.0]
    assert chunk_means([1.0, 3.0], 10) == [1.0, 3.0]
    means = chunk_means([float(i) for i in range(23)], 10)
    assert len(means) == 10
    assert means[-1] == 21.0


# --- ratios and tables --------------------------------------------------------------------------


def test_ratios_are_of_medians_against_the_fastest_peer(tool):
    """The fastest peer has the highest median, not the highest single round."""
    report, case = tool.benchmark_report, tool.benchmark_cases.case_named("train-c")
    ours, slow, fast = "gpt_jax", "nanoGPT eager float32", "nanoGPT eager bfloat16"
    times = {ours: (1.0, 2.0, 1.0), slow: (1.0, 8.0, 8.0), fast: (4.0, 2.0, 2.0)}
    measured = record(
        *(
            made("train-c", mode, round_, [each, each, 50.0])
            for mode, rounds in times.items()
            for round_, each in enumerate(rounds)
        ),
        made("train-c", "nanoGPT compiled float32", 0, [8.0]),
    )
    found = {s.mode: s for s in report.summaries(measured, case)}
    assert list(found) == [ours, slow, fast, "nanoGPT compiled float32"]
    best = report.fastest_peer(list(found.values()))
    assert best.mode == fast
    assert report.ratio(found[ours], best) == report.Range(2.0, 1.0, 4.0)
    only_the_first_round = report.ratio(found["nanoGPT compiled float32"], best)
    assert only_the_first_round == report.Range(0.25, 0.5, 0.5)
    text = report.speed_table(measured)
    rows = {line.split("|")[2].strip(): line for line in text.splitlines()}
    assert "2.00 | [1.00, 4.00] |    1.2 | met" in rows[ours]
    assert "1.00 |" in rows[f"**{fast}**"]
    assert {len(line) for line in text.splitlines()} == {len(text.splitlines()[0])}


def test_shares_of_the_peak_and_memory(tool):
    report = tool.benchmark_report
    case = tool.benchmark_cases.case_named("train-c")
    n_flops = report.training_flops_per_token(case)
    # 124M parameters: 6 N and attention, within a few percent.
    assert n_flops == pytest.approx(6 * 124e6 + 12 * 12 * 768 * 1024, rel=0.03)
    measured = record(
        made("peak", "jax float32", 0, [1.0], work=100e9),
        made("peak", "torch float32", 0, [1.0], work=50e9),
        made("peak", "torch bfloat16", 0, [1.0], work=200e9),
        made(
            "train-c", "gpt_jax", 0, [1.0], work=100e9 / n_flops, operands="bfloat16",
            whole_run_peak_bytes=2**31,
        ),
        made("train-c", "gpt_jax float32", 0, [1.0], work=80e9 / n_flops, operands="float32"),
        made("train-c", "nanoGPT eager float32", 0, [1.0]) | {"peak_bytes": 2**29},
    )  # fmt: skip
    assert report.peaks(measured) == {"float32": 100e9, "bfloat16": 200e9}
    rows = report.peak_table(measured).splitlines()
    assert "50% bfloat16" in rows[5]
    assert rows[5].rstrip("| ").endswith("60% | not met")
    assert "80% float32" in rows[6]
    assert rows[6].rstrip("| ").endswith("75% | met")
    memory = [cell.strip() for cell in report.memory_table(measured).splitlines()[2].split("|")]
    assert memory[1:7] == ["gpt_jax", "1.00", "", "2.00", "0.50", "not met"]


def test_what_takes_a_start_is_written_in_seconds(tool):
    show = tool.benchmark_report.show_speed
    assert show(1, 1 / 2.5) == "2.50 s"
    assert show(1, 1 / 0.0444) == "0.0444 s"
    assert show(64, 12.345) == "12.3 tokens/s"
    assert show(64, 28154.8) == "28,155 tokens/s"
    assert show(2 * 512**3, 4.5e11) == "450 GFLOP/s"


def test_modes_name_settings_of_compute(tool):
    cases = tool.benchmark_cases
    assert cases.compute_settings("gpt_jax") == {}
    assert cases.compute_settings("gpt_jax float32") == {"compute.dtype": "float32"}
    assert cases.compute_settings("gpt_jax attention=reference remat=full") == {
        "compute.attention": "reference",
        "compute.remat": "full",
    }
    with pytest.raises(ValueError, match="--only train-d; allowed: peak, train-a"):
        cases.case_named("train-d")


# --- order, resume, mistakes --------------------------------------------------------------------


def test_rounds_are_interleaved_and_rotate(tool):
    cases = [tool.benchmark_cases.case_named(name) for name in ("data", "first-step-warm")]
    order = list(tool.benchmark.schedule(cases, 2))
    assert [(case.name, round_) for case, _, round_ in order] == (
        [("data", 0)] * 2 + [("first-step-warm", 0)] * 3
        + [("data", 1)] * 2 + [("first-step-warm", 1)] * 3
    )  # fmt: skip
    first, second = order[2:5], order[7:10]
    assert [m for _, m, _ in second] == [m for _, m, _ in [*first[1:], first[0]]]
    ours = list(tool.benchmark.schedule(cases, 1, peers="none"))
    assert [mode for _, mode, _ in ours] == ["gpt_jax", "gpt_jax"]
    named = list(tool.benchmark.schedule(cases, 1, peers="nanoGPT memmap"))
    assert [mode for _, mode, _ in named] == ["gpt_jax", "nanoGPT memmap", "gpt_jax"]
    with pytest.raises(ValueError, match="--peers minGPT: no mode of the chosen cases"):
        list(tool.benchmark.schedule(cases, 1, peers="minGPT"))


@pytest.fixture
def pretended(tool, monkeypatch):
    """Measurements that take no time: which were made, and which shall fail or be slow."""
    asked, failing, slow = [], set(), set()

    def measure_in_process(case, mode, seconds, out):
        asked.append((case.name, mode))
        if mode in failing:
            return {"error": "no compiler"}
        return {"seconds": [10.0 if mode in slow else 1.0], "work": 64, "peak_bytes": 2**20}

    monkeypatch.setattr(tool.benchmark, "measure_in_process", measure_in_process)
    monkeypatch.setattr(tool.benchmark, "require_peers", lambda cases: None)
    monkeypatch.setattr(tool.benchmark.signal, "signal", lambda *_: None)
    return types.SimpleNamespace(asked=asked, failing=failing, slow=slow)


def run(tool, out: Path, *arguments: str) -> int:
    return tool.benchmark.main(["--out", str(out), "--only", "data", *arguments])


def test_a_second_run_goes_on_where_the_first_ended(tool, pretended, tmp_path, capsys):
    assert run(tool, tmp_path, "--rounds", "1") == 0
    assert pretended.asked == [("data", "gpt_jax"), ("data", "nanoGPT memmap")]
    assert run(tool, tmp_path, "--rounds", "2") == 0
    assert len(pretended.asked) == 4
    assert run(tool, tmp_path, "--rounds", "2") == 0
    assert len(pretended.asked) == 4
    assert {path.name for path in tmp_path.iterdir()} == {
        f"benchmark.{suffix}" for suffix in ("json", "md", "png", "svg")
    }
    printed = capsys.readouterr().out
    assert (tmp_path / "benchmark.md").read_text() in printed

    other = tmp_path / "elsewhere"
    assert run(tool, other, "--from", str(tmp_path / "benchmark.json")) == 0
    assert capsys.readouterr().out == (tmp_path / "benchmark.md").read_text()
    assert len(pretended.asked) == 4

    assert run(tool, tmp_path, "--seconds", "3") == 2
    said = capsys.readouterr().err
    assert "measured with another seconds (5.0, now 3.0)" in said


def test_what_failed_is_listed_and_tried_again(tool, pretended, tmp_path, capsys):
    pretended.failing.add("nanoGPT memmap")
    assert run(tool, tmp_path, "--rounds", "3") == 0
    assert len(pretended.asked) == 4  # not in every round
    assert "data nanoGPT memmap failed: no compiler" in capsys.readouterr().out
    pretended.failing.clear()
    assert run(tool, tmp_path, "--rounds", "3") == 0
    assert len(pretended.asked) == 7
    assert "failed" not in capsys.readouterr().out


def test_a_slow_peer_may_rest(tool, pretended, tmp_path):
    pretended.slow.add("nanoGPT eager float32")
    arguments = ["--out", str(tmp_path), "--only", "first-step-warm", "--rounds", "3"]
    assert tool.benchmark.main([*arguments, "--rest-below", "0.8"]) == 0
    counts = {mode: pretended.asked.count(("first-step-warm", mode)) for _, mode in pretended.asked}
    assert counts == {"gpt_jax": 3, "nanoGPT eager float32": 1, "nanoGPT compiled float32": 3}


def test_missing_peers_are_one_line(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool.benchmark.signal, "signal", lambda *_: None)
    monkeypatch.setattr(tool.benchmark.importlib.util, "find_spec", lambda name: None)
    assert run(tool, tmp_path) == 2
    said = capsys.readouterr().err
    assert said == (
        "benchmark: no torch and no transformers to compare with: pip install "
        "'gpt-jax[benchmark]', or --peers none\n"
    )


# --- from end to end ----------------------------------------------------------------------------


def test_a_tiny_training_is_measured_in_a_process_of_its_own(tool, tmp_path, monkeypatch, capsys):
    """Through `gpt_jax.train.loop.train`: the only test here that trains."""
    monkeypatch.setattr(tool.benchmark.signal, "signal", lambda *_: None)
    arguments = ["--only", "train-tiny", "--peers", "none", "--rounds", "1", "--seconds", "0"]
    assert tool.benchmark.main([*arguments, "--out", str(tmp_path)]) == 0
    measured = json.loads((tmp_path / "benchmark.json").read_text())
    assert measured["failures"] == {}
    assert [found["mode"] for found in measured["measurements"]] == ["gpt_jax", "gpt_jax float32"]
    for found in measured["measurements"]:
        assert len(found["seconds"]) == tool.benchmark_cases.CHUNKS
        assert all(0 < each < 5 for each in found["seconds"])
        assert found["work"] == 4 * 16
        peaks = [found[f"{name}peak_bytes"] for name in ("start_", "", "whole_run_")]
        assert 2**26 < peaks[0] <= peaks[1] <= peaks[2]
    assert measured["measurements"][1]["operands"] == "float32"
    assert "train-tiny | gpt_jax" in capsys.readouterr().out


def test_a_measurement_that_fails_says_why(tool, tmp_path):
    case = tool.benchmark_cases.case_named("train-tiny")
    found = tool.benchmark.measure_in_process(case, "gpt_jax float3", 0.0, tmp_path)
    assert "compute.dtype = float3" in found["error"]


@pytest.mark.parametrize("name", ["validation", "scoring", "data"])
def test_what_else_is_measured_of_ours_runs(tool, tmp_path, name):
    ours = importlib.import_module("benchmark_ours")
    case = dataclasses.replace(tool.benchmark_cases.case_named("train-tiny"), warm_up=0)
    tool.benchmark_cases.write_texts(tmp_path)
    found = getattr(ours, f"measure_{name}")(case, "gpt_jax", 1, tmp_path)
    assert found["work"] > 0
    assert all(0 < each < 60 for each in found["seconds"])
