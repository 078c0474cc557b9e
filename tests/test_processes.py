"""Several real processes of one run, by jax's distributed runtime and CPU collectives."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from once import once
from tiny_run import Workspace, last_step, make_workspace, records

from gpt_jax import cli, failures
from gpt_jax.parallel import companions, meeting
from gpt_jax.runs.checkpoint_files import saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runtime import INTERRUPTED, USER_ERROR

FLOAT32 = ("--compute.dtype", "float32")
"""Several devices of a CPU compute in float32; so does the one process they are compared with."""
LOST_WITHIN = 60
"""Seconds after the death of a process in which the others have to end."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


@pytest.fixture(scope="module")
def alone(workspace, tmp_path_factory) -> RunDirectory:
    """The run of one process."""

    def train(root: Path) -> None:
        done = workspace.train(root / "run", *FLOAT32)
        assert done.returncode == 0, done.stderr

    return RunDirectory(once(tmp_path_factory, "float32_run", train) / "run")


def start(
    workspace: Workspace,
    workdir: Path,
    n_processes: int,
    settings: tuple[str, ...] = FLOAT32,
    of_the_last: tuple[str, ...] = (),
) -> list[subprocess.Popen[str]]:
    """The processes of one run, which find each other at a free port."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = ["--coordinator", f"localhost:{port}", "--processes", str(n_processes)]
    return [
        subprocess.Popen(
            workspace.command(
                workdir,
                *(*settings, *place, "--process", str(i)),
                *(of_the_last if i == n_processes - 1 else ()),
            ),
            env=os.environ | workspace.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(n_processes)
    ]


def assert_same_losses(run: RunDirectory, other: RunDirectory) -> None:
    """Every record once, with the same numbers but for the order of sums."""
    ours, theirs = records(run), records(other)
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    assert run.result.exists()
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.keys() == its.keys()
        names = {"loss", "validation_loss", "target_tokens"}
        if mine["step"] <= 20:  # rounding grows from step to step, in gradients first
            names.add("gradient_norm")
        for name in names & mine.keys():
            assert mine[name] == pytest.approx(its[name], rel=1e-3), (mine["step"], name)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_one_goes_on(workspace, alone, tmp_path):
    workdir = tmp_path / "run"
    first, second = start(workspace, workdir, 2)
    try:
        give_up = time.monotonic() + 300
        while last_step(workdir) < 60 and first.poll() is None:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        second.send_signal(signal.SIGKILL)
        _, errors = first.communicate(timeout=LOST_WITHIN)
    finally:
        first.kill()
        second.kill()
    assert first.returncode == failures.LOST, errors
    assert "lost process 1 of 2" in errors
    assert not RunDirectory(workdir).result.exists()
    done = workspace.train(workdir, *FLOAT32)
    assert done.returncode == 0, done.stderr
    assert_same_losses(RunDirectory(workdir), alone)


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", [2, 4])
def test_several_processes_have_the_losses_of_one(workspace, tmp_path, n_processes):
    """Four processes divide no batch of two: the ramp begins with four sequences."""
    settings = (*FLOAT32, "--train.ramp_from_sequences", str(n_processes))
    done = workspace.train(tmp_path / "alone", *settings)
    assert done.returncode == 0, done.stderr
    started = start(workspace, tmp_path / "run", n_processes, settings)
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * n_processes, ended
    spoke = ["validation loss" in out for out, _ in ended]
    assert spoke == [True] + [False] * (n_processes - 1)
    assert_same_losses(RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "alone"))


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_the_same_step(workspace, alone, tmp_path):
    workdir = tmp_path / "run"
    started = start(workspace, workdir, 2)
    give_up = time.monotonic() + 300
    while last_step(workdir) < 30 and started[0].poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [INTERRUPTED] * 2, ended
    assert saved_steps(RunDirectory(workdir).checkpoints)[-1] == last_step(workdir) >= 30
    assert not RunDirectory(workdir).result.exists()
    done = workspace.train(workdir, *FLOAT32)
    assert done.returncode == 0, done.stderr
    assert_same_losses(RunDirectory(workdir), alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("--data.path", "OTHER"), "process 1 of 2 disagrees: data.path is"),
        (("--evaluate.every_tokens", "1024"), "disagrees: evaluate.every_tokens is 1024 there"),
        (("--processes", "3"), "--processes is 3 in process 1, 2 in process 0"),
        (("--process", "0"), "two processes say --process 0"),
    ],
)
def test_processes_that_were_started_differently_end_with_the_reason(
    workspace, tmp_path, settings, said
):
    other = tmp_path / "other.txt"
    other.write_text((workspace.root / "corpus.txt").read_text()[::-1])
    own = tuple(str(other) if word == "OTHER" else word for word in settings)
    started = start(workspace, tmp_path / "run", 2, FLOAT32, own)
    ended = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [USER_ERROR] * 2
    assert all(said in errors and errors.count("\n") == 1 for errors in ended), ended
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_", "said"), [(signal.SIGKILL, "was killed"), (signal.SIGSTOP, "no sign of life")]
)
def test_one_that_is_killed_or_frozen_early_ends_the_other(workspace, tmp_path, signal_, said):
    first, second = start(workspace, tmp_path / "run", 2)
    try:
        time.sleep(3)
        second.send_signal(signal_)
        _, errors = first.communicate(timeout=300)
    finally:
        for process in (first, second):
            process.kill()
    assert first.returncode == failures.LOST, errors
    assert errors.splitlines()[-1].startswith("gpt-jax: process 0 of 2: lost process 1 of 2")
    assert said in errors or "before all had come" in errors


def reshard(verb: str, directory: Path, mesh: str, n_devices: int, n_processes: int = 1):
    """(digest of a state's bits, arrays that are split) as every process says."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = str(Path(__file__).with_name("reshard.py"))
    started = [
        subprocess.Popen(
            [sys.executable, script, verb, str(directory), mesh]
            + [str(x) for x in (n_devices, port, n_processes, i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(n_processes)
    ]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * n_processes, ended
    (said,) = {out.splitlines()[-1] for out, _ in ended}  # Gloo speaks before
    digest, n_split = said.split()
    return digest, int(n_split)


@pytest.mark.slow
def test_a_state_has_the_same_bits_on_other_devices_axes_and_processes(tmp_path):
    """Parameters, moments, moving average and counters of AdamW."""
    one, two = tmp_path / "one", tmp_path / "two"
    digest, n_split = reshard("save", one, '{"fsdp": 4, "tensor": 2}', 8)
    assert n_split > 20
    for mesh, n_devices, n_processes in (
        ("{}", 1, 1),
        ('{"tensor": 2}', 2, 1),
        ('{"data": 2, "fsdp": 2}', 4, 1),
        ('{"fsdp": 4}', 2, 2),
    ):
        found = reshard("restore", one, mesh, n_devices, n_processes)
        assert found[0] == digest, (mesh, n_devices, n_processes)
        assert (found[1] > 20) == (mesh != "{}")
    by_two, n_split = reshard("save", two, '{"fsdp": 2, "tensor": 2}', 2, 2)
    assert n_split > 20
    for mesh, n_devices, n_processes in (('{"tensor": 4, "fsdp": 2}', 8, 1), ('{"data": 4}', 1, 4)):
        assert reshard("restore", two, mesh, n_devices, n_processes)[0] == by_two


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("seq_len = 3; allowed: 4"), 2, "process 0 of 1: seq_len = 3; allowed: 4\n"),
        (ValueError("Gloo AllReduce failed: reset"), failures.LOST, "lost another process"),
        (KeyError("a bug"), 1, "Traceback"),
    ],
)
def test_how_a_process_leaves(monkeypatch, capsys, error, status, said):
    monkeypatch.setattr(companions.os, "_exit", lambda status: sys.exit(status))
    with pytest.raises(type(error)) as raised:
        raise error  # for its traceback
    with pytest.raises(SystemExit) as left:
        meeting.leave(raised.value)
    assert left.value.code == status
    shown = capsys.readouterr().err
    assert said in shown
    assert ("Traceback" in shown) == (status == 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--coordinator", "node1:5000"], "--processes and --process missing"),
        (
            ["--coordinator", "node1", "--processes", "2", "--process", "0"],
            "--coordinator node1; it is HOST:PORT",
        ),
        (
            ["--coordinator", "node1:5000", "--processes", "2", "--process", "2"],
            "--process 2 of --processes 2; allowed: 0 to 1",
        ),
    ],
)
def test_mistaken_places(workspace, tmp_path, capsys, arguments, said):
    assert cli.main(["train", str(workspace.config_file), *arguments]) == 2
    assert said in capsys.readouterr().err
