"""`gpt-jax next SWEEP`: the missing trials of a sweep, priced in seconds and chip-hours."""

import json

import pytest
from simulated_sweep import BUDGETS, add_at, isoflop_sweep

from gpt_jax.cli import main
from gpt_jax.config import overrides
from gpt_jax.sweep import store
from gpt_jax.sweep.load import read_sweep

SWEEP = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from simulated_sweep import BUDGETS, add_at, SimulatedSweep
from gpt_jax.sweep.trial import Trial

def get_sweep():
    sweep = SimulatedSweep(Path("/nowhere"))
    entries = [add_at(sweep, BUDGETS[2], 128), add_at(sweep, 8 * BUDGETS[3], 64)]
    return [Trial(entry.config, entry.varied) for entry in entries]
"""


@pytest.fixture
def sweep_file(tmp_path, monkeypatch, repository):
    """A sweep file whose directory has 24 finished runs, two that went wrong and two missing."""
    sweep = isoflop_sweep(tmp_path / "runs")
    add_at(sweep, 8 * BUDGETS[3], 64)
    monkeypatch.setattr(store.SweepDirectory, "open", staticmethod(lambda path: sweep))
    path = tmp_path / "study.py"
    path.write_text(SWEEP.format(tests=str(repository / "tests" / "sweep")))
    return path


def test_missing_trials_are_chosen_and_written_as_a_sweep(sweep_file, tmp_path, capsys):
    out, document = tmp_path / "chosen.py", tmp_path / "next.json"
    target = ["--target", "1e14", "--json", str(document)]
    work = ["--workdir", str(tmp_path / "runs")]
    command = ["next", str(sweep_file), "--budget", "1e4", *target, *work, "--out", str(out)]
    assert main(command) == 0
    found = json.loads(document.read_text())
    # 8 x 2.7e12 FLOPs at the 4e10 a second of the finished runs
    cost = {run["run"]: run["cost"] for run in found["runs"]}
    assert cost["flops-2e13-width-64"] == pytest.approx(8 * BUDGETS[3] / 4e10, rel=0.01)
    assert cost.keys() <= {"flops-2e13-width-64", "flops-9e11-width-128"}
    original = {overrides.fingerprint(t.config) for t in read_sweep(sweep_file, {}).trials}
    chosen = [overrides.fingerprint(t.config) for t in read_sweep(out, {}).trials]
    assert len(chosen) == len(found["runs"])
    assert set(chosen) <= original
    hours = ["next", str(sweep_file), "--budget", "1", *target, *work, "--chip", "h100"]
    assert main(hours) == 0
    assert "h100-hours" in capsys.readouterr().out
    folder = ["next", str(tmp_path / "runs"), "--budget", "1", *target, "--chip", "h100"]
    assert main(folder) == 2
    assert "need the sweep's file" in capsys.readouterr().err
