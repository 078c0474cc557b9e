"""Sweeps in a bucket: workers that share nothing else divide the trials, and lose none."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_servers import MOSTLY_S3, forgotten
from once import once
from tiny_run import Workspace, make_workspace

from gpt_jax import cli
from gpt_jax.storage import lease, places
from gpt_jax.storage.buckets import bucket_of
from gpt_jax.storage.paths import Address
from gpt_jax.sweep.load import load_sweep
from gpt_jax.sweep.store import SweepDirectory

SWEEP = """
from gpt_jax.config import *
from gpt_jax.sweep.grid import *
from gpt_jax.sweep.trial import make_trials

BASE = Config(
    model=ModelConfig(vocab_size=257, seq_len=16, n_layers=1, d_model=16, n_heads=2, bias=False),
    data=DataConfig(
        source="text", path={text!r}, tokenizer="byte", validation="tail", validation_fraction=0.1
    ),
    train=TrainConfig(tokens={steps} * 4 * 16, batch_sequences=4),
    evaluate=EvaluateConfig(every_tokens=10 * 4 * 16, batch_sequences=8),
    checkpoint=CheckpointConfig(every_tokens=10 * 4 * 16),
)


def get_sweep():
    return make_trials(BASE, [{{"seed": seed}} for seed in range({trials})])
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


def write_sweep(workspace: Workspace, directory: Path, trials: int, steps: int) -> Path:
    path = directory / "tiny_sweep.py"
    text = str(workspace.root / "corpus.txt")
    path.write_text(SWEEP.format(text=text, trials=trials, steps=steps))
    return path


def begin(file: Path, place: str) -> SweepDirectory:
    name, trials = load_sweep(file, {})
    return SweepDirectory.create(Address(place), name, str(file), trials)


@contextlib.contextmanager
def seen_by_another(place: str) -> Iterator[SweepDirectory]:
    """The sweep with a copy of its own beside those of this process, as another process has."""
    mine = dict(places._copies)
    with forgotten():
        sweep = SweepDirectory.open(place)
        places._copies.update(mine)
        yield sweep


def content(bucket: str) -> dict[str, bytes]:
    """Small objects beneath an address, by their names there."""
    address = Address(bucket)
    store = bucket_of(address)
    found = [key for key in store.list(address.key) if "/state/" not in key]
    return {key.removeprefix(f"{address.key}/"): store.read(key) for key in found}


def test_two_workers_never_hold_one_trial(workspace, bucket, tmp_path):
    """Claims of two processes that know nothing of each other, in the place of a trial's work."""
    sweep = begin(write_sweep(workspace, tmp_path, 3, 10), f"{bucket}/sweep")
    names = [entry.name for entry in sweep.entries]
    with seen_by_another(f"{bucket}/sweep") as other:
        mine, theirs = sweep.claim(names[0]), other.claim(names[0])
        assert mine is not None
        assert theirs is None
        assert [entry.name for entry in other.claimable()] == names[1:]
        assert other.states()[names[0]] == "running"
        assert other.claimed_by(sweep.identity) == [names[0]]
        sweep.finish(names[0], "failed", "for a test")
        mine.release()
        assert other.states()[names[0]] == "failed"
        assert other.claim(names[0]) is None
        again = other.claim(names[0], retry=["failed"])
        assert again is not None
        assert sweep.claim(names[0], retry=["failed"]) is None
        assert not mine.is_held()
        assert again.is_held()
        again.release()


def test_a_worker_of_a_dead_machine_loses_its_claim(workspace, bucket, tmp_path, monkeypatch):
    sweep = begin(write_sweep(workspace, tmp_path, 1, 10), f"{bucket}/sweep")
    name = sweep.entries[0].name
    mine = lease._myself("")
    with monkeypatch.context() as patch:
        patch.setattr(lease, "_myself", lambda identity: mine | {"boot": "another machine"})
        dead = sweep.claim(name)
    assert isinstance(dead, lease.Lease)
    dead._released.set()
    with seen_by_another(f"{bucket}/sweep") as other:
        assert other.claim(name) is None
        monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
        time.sleep(2)  # S3 tells whole seconds
        claim = other.claim(name)
        assert claim is not None
    dead._released.clear()
    assert not dead.is_held()
    claim.release()


def run(workspace: Workspace, file: Path, place: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gpt_jax", "sweep", "run", str(file), "--workdir", place]
    data = f"--data.cache={workspace.cache / 'gpt_jax' / 'data'}"
    return subprocess.Popen(
        [*command, data, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("bucket", MOSTLY_S3, indirect=True)
def test_a_sweep_is_run_watched_and_reported_in_a_bucket(
    workspace, bucket, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    place, file = f"{bucket}/sweep", write_sweep(workspace, tmp_path, 3, 20)
    process = run(workspace, file, place, "--launcher", "packed", "--jobs", "1")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert f"{place}: 3 trials: 3 done; 100% of the FLOPs" in output
    assert str(tmp_path / "user-cache") not in output
    found = content(place)
    assert len([name for name in found if name.endswith("/result.json")]) == 3
    assert len([name for name in found if re.search(r"/claims/\d+$", name)]) == 3
    assert any(name.startswith("logs/") for name in found)
    with forgotten():
        assert cli.main(["sweep", "status", place]) == 0
    assert f"{place}: 3 trials: 3 done" in capsys.readouterr().out
    with forgotten():
        assert cli.main(["sweep", "report", str(file), "--workdir", place]) == 0
    assert f"wrote {place}/report: runs.csv" in capsys.readouterr().out
    assert content(place)["report/runs.csv"].count(b"\n") == 4


@pytest.mark.slow
def test_a_sweep_survives_the_kill_of_its_workers(workspace, bucket, tmp_path):
    """Two workers beside each other; one is killed in the middle, then the launcher itself."""
    place, file = f"{bucket}/sweep", write_sweep(workspace, tmp_path, 8, 400)
    process = run(workspace, file, place, "--jobs", "2")
    killed = False
    while process.poll() is None and not killed:
        time.sleep(0.5)
        sealed = [n for n in content(place) if re.search(r"trials/.*/manifest\.json", n)]
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
        if sealed and (workers := children.stdout.split()):
            os.kill(int(workers[0]), signal.SIGKILL)
            killed = True
    assert killed
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 1, output  # the killed worker's trial is noted failed
    again = run(workspace, file, place, "--jobs", "2", "--retry", "failed")
    output, _ = again.communicate(timeout=500)
    assert again.returncode == 0, output
    assert f"{place}: 8 trials: 8 done" in output


def test_what_a_bucket_cannot_do_is_refused(workspace, bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    file = write_sweep(workspace, tmp_path, 1, 10)
    place = f"{bucket}/sweep"
    assert cli.main(["sweep", "run", str(file), "--workdir", place, "--launcher", "slurm"]) == 2
    assert "with --launcher slurm: submitit keeps files on a disk" in capsys.readouterr().err
    assert cli.main(["sweep", "run", f"{bucket}/sweep.py"]) == 2
    assert "is not on a file system of this machine" in capsys.readouterr().err
