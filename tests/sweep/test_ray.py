"""Sweeps by Ray: real clusters of two nodes on this machine, one of them killed at work."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from once import once
from test_bucket_sweeps import write_sweep
from tiny_run import Workspace, make_workspace

from gpt_jax import cli
from gpt_jax.storage.buckets import bucket_of
from gpt_jax.storage.paths import Address
from gpt_jax.sweep import ray_tasks
from gpt_jax.sweep.store import SweepDirectory

N_TRIALS = 8


def test_resources_are_rays(tmp_path):
    asked = ray_tasks.parse_resources(["gpus=0.5", "memory_gb=2", "TPU=4"])
    assert ray_tasks.options(asked, "t") == {
        "num_gpus": 0.5,
        "memory": 2_000_000_000,
        "resources": {"TPU": 4.0},
        "name": "t",
        "max_retries": ray_tasks.RETRIES,
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--launcher", "ray", "--ray", "gpus"], "--ray gpus; it looks like --ray gpus=1"),
        (["--launcher", "ray", "--ray", "TPU=-1"], "TPU = -1.0; a number, 0 or more"),
        (["--ray", "gpus=1"], "--ray is of --launcher ray; the launcher is local"),
    ],
)
def test_mistakes_are_one_line(given, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ray_tasks, "require", lambda *_: None)
    file = tmp_path / "sweep.py"
    file.write_text("from gpt_jax.config import Config\nfrom gpt_jax.sweep.trial import Trial\n\n\n"
                    "def get_sweep():\n    return [Trial(Config(), {})]\n")  # fmt: skip
    place = ["--workdir", str(tmp_path / "sweep")]
    assert cli.main(["sweep", "run", str(file), *place, *given]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (tmp_path / "sweep").exists()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


@pytest.fixture
def cluster(monkeypatch, workspace):
    """Two nodes of one CPU each; what its processes inherit is set before."""
    utils = pytest.importorskip("ray.cluster_utils", reason="needs pip install 'gpt-jax[ray]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.root / "cache"))
    monkeypatch.setenv("RAY_task_oom_retries", "0")
    made = utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    made.second = made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def losses(place) -> dict[str, float]:
    sweep = SweepDirectory.open(place)
    results = {e.name: sweep.run(e.name).read_result() for e in sweep.entries}
    return {name: result["validation_loss"] for name, result in results.items()}


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_eight_trials_in_a_bucket_outlive_a_node(bucket, cluster, workspace, tmp_path, capsys):
    """The losses are those of one process on a disk, to the bit; the report is read from there."""
    file = write_sweep(workspace, tmp_path, trials=N_TRIALS, steps=150)
    place = f"{bucket}/sweep"
    killed = []

    def kill_the_second_node() -> None:
        """Once it works: two trials have to be running before its processes are killed."""
        while not killed:
            time.sleep(1)
            try:
                sweep = SweepDirectory.open(place)
            except ValueError:
                continue
            if sum(sweep.state(e.name) == "running" for e in sweep.entries) >= 2:
                cluster.remove_node(cluster.second, allow_graceful=False)
                killed.append(time.monotonic())

    thread = threading.Thread(target=kill_the_second_node, daemon=True)
    thread.start()
    command = ["sweep", "run", str(file), "--workdir", place, "--launcher", "ray"]
    assert cli.main([*command, "--ray-address", cluster.address]) == 0
    assert killed
    assert f"{N_TRIALS} trials: {N_TRIALS} done" in capsys.readouterr().out
    assert cli.main(["sweep", "run", str(file), "--workdir", str(tmp_path / "disk")]) == 0
    assert losses(place) == losses(tmp_path / "disk")
    assert cli.main(["sweep", "report", str(file), "--workdir", place]) == 0
    table = bucket_of(Address(place)).read(f"{Address(place).key}/report/runs.csv")
    assert table.count(b"\n") == 1 + N_TRIALS


@pytest.mark.slow
def test_told_to_stop_it_saves_and_the_same_command_continues(cluster, workspace, tmp_path):
    file = write_sweep(workspace, tmp_path, trials=2, steps=3000)
    place = tmp_path / "sweep"

    def stop() -> None:
        while True:
            time.sleep(0.5)
            found = [*Path(place).glob("trials/*/metrics.jsonl")]
            if len(found) == 2 and all(path.stat().st_size > 20_000 for path in found):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    command = ["sweep", "run", str(file), "--workdir", str(place), "--launcher", "ray"]
    command += ["--ray-address", cluster.address]
    assert cli.main(command) == 130
    sweep = SweepDirectory.open(place)
    states = {sweep.state(e.name) for e in sweep.entries}
    assert states <= {"preempted", "done"}
    assert "preempted" in states
    assert cli.main(command) == 0
    assert {sweep.state(e.name) for e in sweep.entries} == {"done"}
