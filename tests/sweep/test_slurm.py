"""Sweeps on a real Slurm, started by the test: arrays, preemption, resources, what is missing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_slurm
from once import once
from tiny_run import Workspace, make_workspace, records

from gpt_jax.config import Config
from gpt_jax.run import RunDirectory
from gpt_jax.sweep import slurm
from gpt_jax.sweep.branches import wsd_branches
from gpt_jax.sweep.grid import values
from gpt_jax.sweep.status import last_step
from gpt_jax.sweep.store import SweepDirectory
from gpt_jax.sweep.trial import make_trials

SWEEP = """
from gpt_jax.config import *
from gpt_jax.sweep.grid import *
from gpt_jax.sweep.trial import make_trials

BASE = Config(
    model=ModelConfig(
        vocab_size=257, seq_len=16, n_layers=1, d_model=16, n_heads=2, norm="rmsnorm", bias=False
    ),
    data=DataConfig(
        source="text", path={text!r}, tokenizer="byte", validation="tail", validation_fraction=0.1
    ),
    train=TrainConfig(batch_sequences=4),
    evaluate=EvaluateConfig(batch_sequences=8),
)


def get_sweep():
    short, long = values("train.tokens", [20 * 64, 4000 * 64])
    return make_trials(BASE, [short, long])


def get_resources(trial):
    return {{"memory_gb": 2 if trial.config.train.tokens > 2000 else 1}}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[dict[str, str]]:
    pytest.importorskip("submitit", reason="submitit is not installed (gpt-jax[slurm])")
    reason = real_slurm.why_not()
    if reason:
        pytest.skip(f"no Slurm can be started: {reason}")
    with real_slurm.running(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def wait_for(what, seconds: float = 120.0) -> None:
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_arrays_preemption_resources_and_what_is_missing(workspace, cluster, tmp_path):
    """In one test: a cluster does not start in no time."""
    file, directory = tmp_path / "grid.py", tmp_path / "runs"
    file.write_text(SWEEP.format(text=str(workspace.root / "corpus.txt")))
    environment = os.environ | cluster | workspace.environment

    def sweep_run(*more: str) -> str:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "gpt_jax", "sweep", "run", str(file)),
                *("--workdir", str(directory), "--launcher", "slurm", "--slurm", "cpus=1", *more),
            ],
            env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = sweep_run("--slurm", "minutes=30")
    # The two trials ask for different memory: two arrays.
    assert said.count("submitted 1 trials as") == 2
    assert "memory_gb = 2" in said
    assert "memory_gb = 1" in said
    sweep = SweepDirectory.open(directory)
    short, long = sweep.entries
    # Submitted again while both are queued: nothing is.
    again = sweep_run()
    assert "submitted" not in again
    assert "2 trials were queued already" in again

    # Preempted in the middle, as Slurm does it: a signal to save, then the queue again.
    wait_for(lambda: (last_step(sweep.run(long.name).metrics) or {"step": 0})["step"] > 50)
    job = json.loads((directory / "slurm" / "jobs.json").read_text())[long.name]
    subprocess.run(["scancel", "--signal=USR2", job], env=environment, check=True)
    wait_for(lambda: sweep.state(long.name) == "preempted")
    saved = sweep.outcome(long.name)
    assert saved is not None
    assert "SIGTERM after step" in saved["message"]
    wait_for(lambda: set(sweep.states().values()) == {"done"})
    outputs = "".join(p.read_text() for p in (directory / "slurm").glob("*_log.*"))
    assert "continuing after step" in outputs

    alone = RunDirectory(tmp_path / "alone")
    command = [sys.executable, "-m", "gpt_jax", "train", str(sweep.run(long.name).config)]
    subprocess.run(
        [*command, "--workdir", str(alone.path)],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    assert records(sweep.run(long.name)) == records(alone)
    assert sweep.run(short.name).read_result() is not None
    assert "submitted" not in sweep_run()


# --- without a cluster --------------------------------------------------------------------------


def test_resources_as_given():
    given = ["cpus=4", "memory_gb=16", "setup=module load cuda", "setup=a=b", "constraint=a100"]
    assert slurm.parse_resources(given) == {
        "cpus": 4,
        "memory_gb": 16,
        "setup": ["module load cuda", "a=b"],
        "constraint": "a100",
    }
    made = slurm.parameters(slurm.parse_resources([*given, "exclude_me=n1"]), "ladder")
    assert made["cpus_per_task"] == 4
    assert made["mem"] == "16GB"
    assert made["setup"] == ["module load cuda", "a=b"]
    assert made["additional_parameters"] == {
        "requeue": True,
        "constraint": "a100",
        "exclude-me": "n1",
    }


@pytest.mark.parametrize("given", ["cpus", "=4", "cpus=many", "gpus=0"])
def test_resources_that_are_none(given):
    with pytest.raises(ValueError, match="--slurm"):
        slurm.parse_resources([given])


def test_trials_of_equal_resources_share_an_array(tmp_path):
    trials = make_trials(Config(), values("seed", range(5)))
    sweep = SweepDirectory.create(tmp_path / "runs", "s", "s.py", trials)

    def gpus(trial):
        return {"gpus": 1 + trial.config.seed % 2}

    made = list(slurm.arrays(sweep, sweep.entries, {"cpus": 2, "gpus": 9}, gpus, {}))
    assert [resources for resources, _ in made] == [
        {"cpus": 2, "gpus": 1},
        {"cpus": 2, "gpus": 2},
    ]
    assert [[e.config.seed for e in entries] for _, entries in made] == [[0, 2, 4], [1, 3]]


def test_branches_are_queued_behind_their_trunks(tmp_path):
    trials = wsd_branches(Config(), values("seed", range(2)), [10**6, 2 * 10**6])
    sweep = SweepDirectory.create(tmp_path / "runs", "s", "s.py", trials)
    jobs: dict[str, str] = {}
    made = []
    for number, (resources, entries) in enumerate(
        slurm.arrays(sweep, sweep.entries, {}, None, jobs)
    ):
        jobs |= {entry.name: f"{number}_{i}" for i, entry in enumerate(entries)}
        made.append((resources, len(entries)))
    assert made == [
        ({}, 2),
        ({"dependency": "afterany:0_0"}, 2),
        ({"dependency": "afterany:0_1"}, 2),
    ]


def test_without_slurm_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"sbatch|pip install 'gpt-jax\[slurm\]'"):
        slurm._submitit()


def test_no_cluster_for_a_reason(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "slurmctld" in real_slurm.why_not()
