"""Runs in a bucket: trained, killed, continued and read as on a disk, by the real command."""

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from bucket_servers import MOSTLY_GS, forgotten
from once import once
from tiny_run import (
    Workspace,
    abstract_state,
    assert_same_state,
    make_workspace,
    records,
)

from gpt_jax import cli
from gpt_jax.runs.checkpoint_files import saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.restoring import restore_state
from gpt_jax.storage import lease
from gpt_jax.storage.buckets import bucket_of
from gpt_jax.storage.paths import Address


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


@pytest.fixture
def here(workspace, monkeypatch) -> Any:
    """here(verb, *arguments) -> status: a verb in this process, which knows of no copy."""
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr("gpt_jax.cost.cpu_speed.measured_cpu_peak", lambda dtype: 1e10)

    def run(*arguments: str) -> int:
        with forgotten():
            return cli.main(arguments)

    return run


@pytest.fixture
def train(workspace, here, bucket) -> Any:
    words = [str(workspace.config_file), "--workdir", f"{bucket}/run", *settings(workspace)]
    return lambda *more: here("train", *words, *more)


def settings(workspace: Workspace) -> list[str]:
    """Fewer checkpoints than those of the reference run, and its corpus."""
    cache = workspace.cache / "gpt_jax" / "data"
    return [f"--data.cache={cache}", "--checkpoint.every_tokens=3072"]


def names(bucket: str) -> list[str]:
    address = Address(bucket)
    return [key.removeprefix(f"{address.key}/") for key in bucket_of(address).list(address.key)]


def assert_same_run(workspace: Workspace, address: str) -> None:
    """What lies in the bucket is the reference run, bit for bit."""
    with forgotten():
        run, reference = RunDirectory(address), workspace.reference
        assert records(run) == records(reference)
        abstract, step = abstract_state(workspace.config()), saved_steps(run.checkpoints)[-1]
        assert step == saved_steps(reference.checkpoints)[-1]
        assert_same_state(
            restore_state(run.checkpoints, abstract, step),
            restore_state(reference.checkpoints, abstract, step),
        )
        assert run.read_result() is not None


@pytest.mark.parametrize("bucket", MOSTLY_GS, indirect=True)
def test_a_run_in_a_bucket_is_that_of_a_disk(train, here, workspace, bucket, capsys, tmp_path):
    assert train() == 0
    said = capsys.readouterr()
    assert f"{bucket}/run/loss.png" in said.out
    assert str(tmp_path) not in said.out + said.err
    assert_same_run(workspace, f"{bucket}/run")
    found = [name for name in names(bucket) if "/.lease/" not in name]
    assert not [name for name in found if ".parts/" in name or name.endswith(".tmp")]
    ours = {name.removeprefix("run/") for name in found if "checkpoints/" not in name}
    theirs = {path.relative_to(workspace.reference.path).as_posix()
              for path in workspace.reference.path.rglob("*") if path.is_file()}  # fmt: skip
    assert ours == {n for n in theirs if "checkpoints/" not in n and not n.startswith(".")}
    for name in names(bucket):
        content = bucket_of(Address(bucket)).read(f"{Address(bucket).key}/{name}")
        assert b"a-secret-of-tests" not in content
    capsys.readouterr()
    assert train() == 0
    assert f"{bucket}/run is done" in capsys.readouterr().out
    assert here("generate", f"{bucket}/run", "--prompt", "the", "--max-new-tokens", "4") == 0
    assert "the" in capsys.readouterr().out


def killed(workspace: Workspace, run: str, cache: Path, after: float) -> bool:
    """Kill the command so many seconds after it has the run's lease; False if it ended before."""
    command = workspace.command(Path("x"), *settings(workspace))
    command[command.index("x")] = run
    folder = Address(run) / ".lease"
    before = lease.latest(bucket_of(folder).list(folder.key))
    process = subprocess.Popen(
        command,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    give_up = time.monotonic() + 300
    while process.poll() is None and lease.latest(bucket_of(folder).list(folder.key)) == before:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


@pytest.mark.slow
def test_killed_twenty_times_runs_are_the_same(train, workspace, bucket, tmp_path, capsys):
    """Runs are killed and continued until they end by themselves: as many as it takes."""
    drawn, n_kills, n_runs = random.Random(1), 0, 0
    while n_kills < 20:
        run = f"{bucket}/{n_runs}"
        if killed(workspace, run, tmp_path / "cache", drawn.uniform(0, 8.0)):
            n_kills += 1
        else:
            assert_same_run(workspace, run)
            n_runs += 1
    assert train(f"--workdir={bucket}/{n_runs}") == 0
    assert_same_run(workspace, f"{bucket}/{n_runs}")
    assert not [name for name in names(bucket) if ".tmp" in name or ".parts/" in name]
    with capsys.disabled():
        print(f"{n_kills} kills of {n_runs + 1} runs in {bucket}")


def together(workspace: Workspace, run: str, caches: Path, n: int) -> list[subprocess.Popen[str]]:
    """The processes of one run, as on hosts that share no disk: each has a cache of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    line = workspace.command(Path("x"), *settings(workspace), "--compute.dtype=float32")
    line[line.index("x")] = run
    line += ["--mesh.fsdp=2"] if n == 2 else []
    places = [[], []] if n == 1 else [["--coordinator", f"localhost:{port}"]] * n
    several = [["--processes", str(n), "--process", str(i)] if n > 1 else [] for i in range(n)]
    return [
        subprocess.Popen(
            [*line, *places[i], *several[i]],
            env=os.environ | {"XDG_CACHE_HOME": str(caches / str(i))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(n)
    ]


@pytest.mark.slow
def test_two_processes_write_one_sharded_checkpoint(workspace, bucket, tmp_path):
    """Both are killed in the middle and go on together; one process alone reads what they wrote."""
    run = f"{bucket}/run"
    started = together(workspace, run, tmp_path, 2)
    give_up = time.monotonic() + 300
    while not (sealed := [n for n in names(bucket) if n.endswith("manifest.json")]):
        assert time.monotonic() < give_up
        assert started[0].poll() is None, started[0].communicate()
        time.sleep(0.1)
    for process in started:
        process.kill()
        process.communicate()
    shards = [n for n in names(bucket) if n.startswith(sealed[0].replace("manifest.json", "state"))]
    kernels = [
        n for n in shards if "params" in n and n.rpartition("/")[2].replace(".", "").isdigit()
    ]
    assert len({n.rpartition("/")[0] for n in kernels}) < len(kernels), "both wrote shards"
    ended = [(p, *p.communicate(timeout=300)) for p in together(workspace, run, tmp_path, 2)]
    assert [process.returncode for process, _, _ in ended] == [0, 0], ended[0][2] + ended[1][2]
    assert "continuing after step" in ended[0][2]
    assert not [name for name in names(bucket) if ".shards" in name or ".tmp" in name]
    (tmp_path / "alone").mkdir()
    alone = workspace.train(tmp_path / "alone" / "run", "--compute.dtype=float32")
    assert alone.returncode == 0, alone.stderr
    with forgotten():
        ours, reference = RunDirectory(run), RunDirectory(tmp_path / "alone" / "run")
        abstract, last = abstract_state(workspace.config()), saved_steps(ours.checkpoints)[-1]
        read = restore_state(ours.checkpoints, abstract, last)
        wanted = restore_state(reference.checkpoints, abstract, last)
        for mine, theirs in zip(jax.tree.leaves(read), jax.tree.leaves(wanted), strict=True):
            if jax.dtypes.issubdtype(mine.dtype, jax.dtypes.prng_key):
                continue
            np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=2e-3)
        theirs = {r["step"]: r["loss"] for r in records(reference) if "loss" in r}
        assert {r["step"] for r in records(ours) if "loss" in r} == set(theirs)
        for record in records(ours):
            if "loss" in record:
                assert record["loss"] == pytest.approx(theirs[record["step"]], rel=1e-3)


def test_a_second_process_is_refused_by_name(train, bucket, capsys):
    held = lease.take(Address(f"{bucket}/run/.lease"))
    assert held is not None
    assert train() == 2
    said = capsys.readouterr().err
    assert f"another process is training in {bucket}/run (process {os.getpid()} on " in said
    held.release()


def test_the_lease_of_a_host_that_died_runs_out(bucket, monkeypatch):
    folder = Address(f"{bucket}/run/.lease")
    mine = lease._myself("")
    monkeypatch.setattr(lease, "_myself", lambda identity: mine | {"boot": "another machine"})
    monkeypatch.setattr(lease, "LEASE_SECONDS", 3.0)
    dead = lease.take(folder)
    assert dead is not None
    dead._released.set()  # its beats end, and it gives nothing back
    assert lease.take(folder) is None
    beat(folder)
    monkeypatch.setattr(lease.time, "sleep", lambda _: beat(folder))
    with pytest.raises(lease.Held, match="process"):  # it is heard of again: it lives
        lease.take(folder, wait=True)
    monkeypatch.undo()
    monkeypatch.setattr(lease, "LEASE_SECONDS", 3.0)
    taken = lease.take(folder, wait=True)
    assert taken is not None
    assert taken.number == 2
    dead._released.clear()
    assert not dead.is_held()
    assert taken.is_held()
    taken.release()


def beat(folder: Address) -> None:
    bucket_of(folder).put(f"{folder.key}/000001.beat", os.urandom(8))
