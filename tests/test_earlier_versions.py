"""A run and a sweep that commit 6ead119 made: they are read, continued and reported as there.

tests/earlier/run was stopped after step 25 of 40; metrics.jsonl beside it has what that commit
recorded when it continued the run to its end. tests/earlier/earlier_sweep is a finished sweep
without its checkpoints.
"""

import csv
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt_jax.config import overrides
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import read_records
from gpt_jax.sweep.load import read_sweep
from gpt_jax.sweep.store import SweepDirectory
from gpt_jax.sweep.table import columns, gather, make_rows, to_csv

EARLIER = Path(__file__).with_name("earlier")
FIRST_NEW_STEP = 26


@pytest.fixture
def in_checkout(repository, tmp_path, monkeypatch):
    """The configs name their text relative to the checkout; caches go elsewhere."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_run_continues_to_the_losses_that_were_recorded(in_checkout, tmp_path):
    """On the processor that recorded them bit for bit; here within float32's rounding."""
    from gpt_jax.train.loop import train

    workdir = tmp_path / "run"
    shutil.copytree(EARLIER / "run", workdir)
    result = train(overrides.load(EARLIER / "config.py"), workdir)
    assert result["n_tokens"] == 2560
    then = {r["step"]: r for r in read_records(EARLIER / "metrics.jsonl") if "loss" in r}
    now = {r["step"]: r for r in read_records(workdir / "metrics.jsonl") if "loss" in r}
    assert sorted(now) == sorted(then) == list(range(1, 41))
    for step in range(FIRST_NEW_STEP, 41):
        for name, value in then[step].items():
            np.testing.assert_allclose(now[step][name], value, rtol=1e-5, err_msg=f"{step} {name}")
    # Two steps differ by far more than that, so another order of the data would be seen.
    losses = [then[step]["loss"] for step in range(FIRST_NEW_STEP, 41)]
    assert min(abs(a - b) for a, b in itertools.pairwise(losses)) > 1e-3


def test_fingerprints_are_those_that_were_recorded():
    facts = json.loads((EARLIER / "run" / "config.json").read_text())
    config = overrides.load(EARLIER / "config.py")
    assert overrides.fingerprint(config) == facts["fingerprint"]
    assert RunDirectory(EARLIER / "run").read_config() == config


def test_a_sweep_is_done_and_its_table_has_the_same_numbers(in_checkout):
    directory = EARLIER / "earlier_sweep"
    recorded = json.loads((directory / "sweep.json").read_text())
    sweep = read_sweep(EARLIER / "sweep.py", {})
    assert [overrides.fingerprint(trial.config) for trial in sweep.trials] == [
        trial["fingerprint"] for trial in recorded["trials"]
    ]
    trials = gather(SweepDirectory.open(directory))
    assert [trial.state for trial in trials] == ["done"] * 4
    rows = list(
        csv.DictReader(to_csv(make_rows(directory.name, trials), columns(trials)).splitlines())
    )
    then = list(csv.DictReader((directory / "report" / "runs.csv").read_text().splitlines()))
    assert len(rows) == len(then) == 4
    for row, before in zip(rows, then, strict=True):
        assert {name: row[name] for name in before} == before
    assert all(math.isfinite(float(row["loss"])) for row in then)
