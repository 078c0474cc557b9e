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
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.sweep import claims as claim_files
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
    short = values("train.tokens", [20 * 64])
    return make_trials(BASE, [*short, *({{"seed": s, "train.tokens": 3000 * 64}} for s in (1, 2))])


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
    # Those that ask for more memory are an array of their own.
    assert "submitted 1 trial as" in said
    assert "submitted 2 trials as" in said
    assert "memory_gb = 1" in said
    assert "memory_gb = 2" in said
    sweep = SweepDirectory.open(directory)
    short, warned, stopped = sweep.entries
    # Submitted again while all are queued: nothing is.
    again = sweep_run()
    assert "submitted" not in again
    assert "3 trials in the queue already" in again

    # In the middle, one is warned that it will be preempted, or that its time is over, and the
    # other one is stopped and put back by Slurm.
    jobs = json.loads((directory / "slurm" / "jobs.json").read_text())
    assert jobs[warned.name].split("_")[0] == jobs[stopped.name].split("_")[0]
    for entry, command in (
        (warned, ["scancel", "--signal=USR2"]),
        (stopped, ["scontrol", "requeue"]),
    ):
        wait_for(lambda name=entry.name: step(sweep, name) > 50)
        subprocess.run([*command, jobs[entry.name]], env=environment, check=True)
        wait_for(lambda name=entry.name: sweep.state(name) == "preempted")
        outcome = sweep.outcome(entry.name)
        assert outcome is not None
        assert "SIGTERM after step" in outcome["message"]
    alone = {e.name: RunDirectory(tmp_path / "alone" / e.name) for e in (warned, stopped)}
    training = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "gpt_jax", "train", str(sweep.run(name).config)),
                *("--workdir", str(run.path)),
            ],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for name, run in alone.items()
    ]  # fmt: skip
    # Waiting to go on, they are not submitted again; and they are watched to their end.
    watched = sweep_run("--wait")
    assert [process.wait(timeout=120) for process in training] == [0, 0]
    assert "submitted" not in watched
    assert "3 trials: 3 done" in watched
    assert sweep.run(short.name).read_result() is not None
    for entry in (warned, stopped):
        output = (directory / "slurm" / f"{jobs[entry.name]}_0_log.err").read_text()
        assert "continuing after step" in output
        assert records(sweep.run(entry.name)) == records(alone[entry.name])
    assert "submitted" not in sweep_run()


def step(sweep: SweepDirectory, name: str) -> int:
    return (last_step(sweep.run(name).metrics) or {"step": 0})["step"]


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


@pytest.mark.parametrize("given", ["cpus", "=4", "cpus=many", "gpus=0", "minutes=4"])
def test_resources_that_are_none(given):
    with pytest.raises(ValueError, match="--slurm"):
        slurm.parse_resources([given])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "is NoneType; need a dict"),
        ({"gpus": "two"}, "gpus = 'two'; a whole number, 1 or more"),
        ({"cpus": True}, "cpus = True"),
        ({"minutes": 1}, "minutes = 1; a whole number, 5 or more"),
        ({"setup": "module load cuda"}, "a list of shell commands"),
        ({"constraint": ["a100"]}, "a text, a number or True"),
    ],
)
def test_what_get_resources_must_not_return(tmp_path, returned, message):
    sweep = SweepDirectory.create(
        tmp_path / "runs", "s", "s.py", make_trials(Config(), values("seed", [1, 2]))
    )
    with pytest.raises(ValueError, match="get_resources of trial seed=1") as error:
        list(slurm.arrays(sweep, sweep.entries, {}, lambda trial: returned, {}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_more_trials_than_an_array_holds_are_several(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "ARRAY_TASKS", 2)
    trials = make_trials(Config(), values("seed", range(5)))
    sweep = SweepDirectory.create(tmp_path / "runs", "s", "s.py", trials)
    made = list(slurm.arrays(sweep, sweep.entries, {"cpus": 1}, None, {}))
    assert [len(entries) for _, entries in made] == [2, 2, 1]
    assert [e for _, entries in made for e in entries] == list(sweep.entries)


def one_trial(tmp_path: Path) -> tuple[SweepDirectory, slurm.TrialTask]:
    trials = make_trials(Config(), values("seed", [1, 2]))
    sweep = SweepDirectory.create(tmp_path / "runs", "s", "s.py", trials)
    return sweep, slurm.TrialTask(str(sweep.path), "seed=1", ())


def test_a_task_waits_for_the_claim_of_its_killed_predecessor(tmp_path, monkeypatch):
    """On another host, which cannot see that the process is gone."""
    sweep, task = one_trial(tmp_path)
    claims = sweep.run(task.name).path / "claims"
    claims.mkdir(parents=True)
    (claims / "000001").write_text(json.dumps({"host": "elsewhere", "pid": 1, "began": "1"}))
    monkeypatch.setattr(claim_files, "STALE_SECONDS", 0.5)
    states = []

    class Worker:
        pid, returncode = 0, 0

        def __init__(self, *_: object, **__: object):
            states.append(sweep.state(task.name))

        def poll(self) -> int:
            return 0

    assert sweep.state(task.name) == "running"
    monkeypatch.setattr(subprocess, "Popen", Worker)
    slurm._RunTask()(task)
    assert states == ["pending"]


def test_a_trial_whose_worker_dies_at_work_has_failed(tmp_path, monkeypatch):
    sweep, task = one_trial(tmp_path)
    program = (
        "import os, signal, sys; from gpt_jax.sweep.store import SweepDirectory; "
        "sweep = SweepDirectory.open(sys.argv[1]); sweep.identity = sys.argv[2]; "
        "sweep.claim('seed=1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    begin = subprocess.Popen

    def dying(command, **options):
        identity = command[command.index("--identity") + 1]
        return begin([sys.executable, "-c", program, task.directory, identity], **options)

    monkeypatch.setattr(subprocess, "Popen", dying)
    with pytest.raises(RuntimeError, match="ended with status -9"):
        slurm._RunTask()(task)
    assert sweep.state(task.name) == "failed"


def test_a_worker_that_never_came_to_its_trial_leaves_it_pending(tmp_path, monkeypatch):
    """A host without jax must not fail the whole sweep."""
    sweep, task = one_trial(tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        slurm._RunTask()(task)
    assert sweep.state(task.name) == "pending"


def test_what_is_said_of_the_queue():
    jobs = {"a": "1_0", "b": "1_1", "c": "2", "d": "3"}
    queue = {"1_0": "running", "1_1": "pending", "3": "pending", "99": "running"}
    assert slurm.describe_queue(jobs, queue) == "in Slurm's queue: 2 pending, 1 running"
    assert slurm.describe_queue(jobs, {"99": "running"}) == ""


def test_what_sbatch_says_against_it():
    error = ValueError("sbatch: unrecognized option '--memry=3'\nTry \"sbatch --help\" for more\n")
    assert slurm._reason(error) == "unrecognized option '--memry=3'"
    assert slurm._reason(ValueError("sbatch: error: no such partition\n")) == "no such partition"


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
