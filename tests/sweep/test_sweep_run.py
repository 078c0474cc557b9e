"""Sweeps that really run: every launcher on tiny models, killed, diverging, packed, branched.

A packed trial is compared with its solo run: what differs in construction is said in each test.
"""

import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from once import once
from tiny_run import Workspace, abstract_state, make_workspace, records
from xla_flags import simulated_devices

from gpt_jax import cli
from gpt_jax.config import Config, DataConfig, EvaluateConfig, MixtureComponent, overrides
from gpt_jax.data.build import build
from gpt_jax.runs.checkpoint_files import saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.history import History
from gpt_jax.runs.restoring import restore_state
from gpt_jax.sweep import lanes as lanes_module
from gpt_jax.sweep.lanes import VectorLanes, device_groups, trial_parts
from gpt_jax.sweep.launch import Workers, watch
from gpt_jax.sweep.load import load_sweep
from gpt_jax.sweep.packs import group, pack_key, train_packs
from gpt_jax.sweep.status import last_step
from gpt_jax.sweep.store import SweepDirectory
from gpt_jax.sweep.worker import one_at_a_time, train_alone, work
from gpt_jax.train.lanes import TurnLanes
from gpt_jax.train.loop import Interrupted, train

SWEEP = """
from gpt_jax.config import *
from gpt_jax.sweep.grid import *
from gpt_jax.sweep.trial import make_trials

BASE = Config(
    model=ModelConfig(
        vocab_size=257, seq_len=16, n_layers=1, d_model=16, n_heads=2, norm="rmsnorm", bias=False,
        dropout_residual=0.1,
    ),
    data=DataConfig(
        source="text", path={text!r}, tokenizer="byte", validation="tail", validation_fraction=0.1
    ),
    train=TrainConfig(tokens={steps} * 4 * 16, batch_sequences=4),
    evaluate=EvaluateConfig(every_tokens=10 * 4 * 16, batch_sequences=8),
    checkpoint=CheckpointConfig(every_tokens=5 * 4 * 16),
    compute=ComputeConfig(dtype="float32"),  # to see equal numbers as equal
)


def get_sweep():
    return make_trials(BASE, [{grid}])
"""
TWO = '{"optimizer.learning_rate": 0.01}, {"optimizer.learning_rate": 0.03, "seed": 1}'
GRID = (
    TWO + ', {"optimizer.b1": 0.5, "schedule.name": "constant", "model.init_std": 0.1}, '
    '{"optimizer.weight_decay": 0.0, "schedule.warmup_tokens": 640}'
)
N_STEPS = 20
RTOL = 2e-4
"""A vectorised product sums in another order; measured differences of the loss are below 1e-5."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


@pytest.fixture
def sweep_file(workspace, tmp_path) -> Path:
    return write_sweep(workspace, tmp_path, GRID)


def write_sweep(workspace: Any, directory: Path, grid: str, steps: int = N_STEPS) -> Path:
    path = directory / "tiny_sweep.py"
    text = str(workspace.root / "corpus.txt")
    path.write_text(SWEEP.format(text=text, grid=grid, steps=steps))
    return path


def begin(file: Path, directory: Path) -> SweepDirectory:
    name, trials = load_sweep(file, {})
    return SweepDirectory.create(directory, name, str(file), trials)


def command(workspace: Any, file: Path, directory: Path, *more: str) -> dict[str, Any]:
    run = [sys.executable, "-m", "gpt_jax", "sweep", "run", str(file), "--workdir", str(directory)]
    return {"args": [*run, *more], "env": os.environ | workspace.environment}


def run(workspace: Any, file: Path, directory: Path, *more: str) -> subprocess.CompletedProcess:
    made = command(workspace, file, directory, *more)
    return subprocess.run(**made, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def solo(workspace, tmp_path_factory) -> dict[str, RunDirectory]:
    """Every trial of GRID by the loop of `gpt-jax train`."""

    def train_all(root: Path) -> None:
        _, trials = load_sweep(write_sweep(workspace, root, GRID), {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(workspace.cache))
            for trial in trials:
                train(trial.config, root / trial.name)

    root = once(tmp_path_factory, "solo", train_all)
    _, trials = load_sweep(root / "tiny_sweep.py", {})
    return {trial.name: RunDirectory(root / trial.name) for trial in trials}


def losses(run: RunDirectory) -> list[float]:
    return [r["loss"] for r in records(run) if "loss" in r]


# --- packs --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def cache(workspace, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.cache))


def force(monkeypatch, kind: str) -> list[str]:
    """Lanes of one kind, whatever a measurement would choose; returns the kinds made."""
    made: list[str] = []

    def choose(experiments, states, devices, read, n_steps_left):
        made.append(kind)
        if kind == "vector":
            return VectorLanes(experiments, states, devices), kind
        return TurnLanes(experiments, states), kind

    monkeypatch.setattr("gpt_jax.sweep.packs.choose_lanes", choose)
    return made


@pytest.mark.parametrize("kind", ["vector", "turns"])
def test_a_packed_trial_is_its_solo_run(kind, sweep_file, solo, tmp_path, monkeypatch):
    """Losses, validations and final parameters; seeds, schedules and initial values differ."""
    made = force(monkeypatch, kind)
    sweep = begin(sweep_file, tmp_path / "packed")
    assert len(group(sweep, sweep.entries)) == 1
    work(sweep, train_packs, lambda _, ready: ready)
    assert made == [kind]
    assert set(sweep.states().values()) == {"done"}
    curves = [losses(sweep.run(e.name)) for e in sweep.entries]
    assert all(abs(a[-1] - b[-1]) > 1e-3 for a, b in itertools.pairwise(curves))
    for entry in sweep.entries:
        packed, alone = records(sweep.run(entry.name)), records(solo[entry.name])
        assert [r["step"] for r in packed] == [r["step"] for r in alone]
        for a, b in zip(packed, alone, strict=True):
            assert a.keys() == b.keys()
            numbers = [key for key, value in b.items() if isinstance(value, float)]
            np.testing.assert_allclose(
                [a[k] for k in numbers], [b[k] for k in numbers], RTOL if kind == "vector" else 0
            )
        result, expected = (r.read_result() for r in (sweep.run(entry.name), solo[entry.name]))
        assert result["fingerprint"] == expected["fingerprint"]
        assert result["validation_loss"] == pytest.approx(expected["validation_loss"], rel=RTOL)
        states = [
            restore_state(r.checkpoints, abstract_state(entry.config), N_STEPS)
            for r in (sweep.run(entry.name), solo[entry.name])
        ]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-3, 2e-4), *states)


def test_a_packed_mixture_is_validated_on_all_corpora(workspace, tmp_path, monkeypatch):
    """As a single run of the same config is; corpora of one name are told apart."""
    force(monkeypatch, "vector")
    text = (workspace.root / "corpus.txt").read_text()
    paths = [tmp_path / language / "shards" for language in ("en", "de", "fr")]
    for i, path in enumerate(paths):
        (tmp_path / "part.txt").write_text(text[: len(text) // (i + 1)])
        part = str(tmp_path / "part.txt")
        built = DataConfig(source="text", path=part, tokenizer="byte", validation="tail")
        build(built, path)
    mixture = tuple(MixtureComponent(path=str(path)) for path in paths)
    file = write_sweep(workspace, tmp_path, GRID, steps=10)
    _, trials = load_sweep(file, {})
    changes = {
        "data": DataConfig(source="mixture", mixture=mixture),
        "evaluate": EvaluateConfig(batch_sequences=8, all_corpora=True),
    }
    trials = [
        dataclasses.replace(trial, config=dataclasses.replace(trial.config, **changes))
        for trial in trials[:2]  # of two seeds
    ]
    sweep = SweepDirectory.create(tmp_path / "packed", "tiny", str(file), trials)
    work(sweep, train_packs, lambda _, ready: ready)
    first, second = (sweep.run(entry.name).read_result() for entry in sweep.entries)
    alone = train(sweep.entries[0].config, tmp_path / "alone")
    others = {key for key in alone if key.startswith("validation_loss_of_")}
    assert others == {"validation_loss_of_de/shards", "validation_loss_of_fr/shards"}
    for key in (*others, "validation_loss"):
        assert first[key] == pytest.approx(alone[key], rel=RTOL), key
        assert abs(second[key] - first[key]) > 1e-3
    assert len({alone[key] for key in (*others, "validation_loss")}) == 3


def test_a_diverged_trial_leaves_the_pack_and_the_others_go_on(
    workspace, solo, tmp_path, monkeypatch
):
    force(monkeypatch, "vector")
    bad = '{"optimizer.learning_rate": 1e30, "optimizer.clip_norm": 1.0}'
    sweep = begin(write_sweep(workspace, tmp_path, f"{bad}, {GRID}"), tmp_path / "packed")
    work(sweep, train_packs, lambda _, ready: ready)
    states = sweep.states()
    diverged = [name for name, state in states.items() if state == "diverged"]
    assert [sweep[name].varied["optimizer.learning_rate"] for name in diverged] == [1e30]
    assert list(states.values()).count("done") == 4
    by_fingerprint = {r.read_result()["fingerprint"]: r for r in solo.values()}
    for entry in sweep.entries[1:]:
        alone = by_fingerprint[entry.fingerprint]
        np.testing.assert_allclose(losses(sweep.run(entry.name)), losses(alone), RTOL)
    assert "went wrong" in sweep.outcome(diverged[0])["message"]


def test_a_stopped_pack_remembers_who_diverged(workspace, tmp_path, monkeypatch):
    """Told to stop after some steps: the rest is saved and preempted, and goes on to its end."""
    force(monkeypatch, "turns")
    bad = '{"optimizer.learning_rate": 1e30}'
    sweep = begin(write_sweep(workspace, tmp_path, f"{bad}, {GRID}"), tmp_path / "packed")
    real, calls = TurnLanes.train, itertools.count()

    def train_and_signal(self, placed, running):
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, placed, running)

    monkeypatch.setattr(TurnLanes, "train", train_and_signal)
    with pytest.raises(Interrupted):
        work(sweep, train_packs, lambda _, ready: ready)
    assert list(sweep.states().values()) == ["diverged"] + ["preempted"] * 4
    work(sweep, train_packs, lambda _, ready: ready)
    assert list(sweep.states().values()) == ["diverged"] + ["done"] * 4
    assert {sweep.outcome(e.name)["attempts"] for e in sweep.entries[:1]} == {1}


def test_a_pack_whose_trials_share_no_saved_step_goes_on(
    workspace, sweep_file, solo, tmp_path, monkeypatch
):
    """As after kills of workers that had them apart: each goes on from its own last checkpoint."""
    force(monkeypatch, "turns")
    sweep = begin(sweep_file, tmp_path / "packed")
    real, done = TurnLanes.train, [0]

    def train_and_signal(self, placed, running):
        n_steps = int(placed[0][1])
        if done[0] <= 11 < done[0] + n_steps:
            os.kill(os.getpid(), signal.SIGTERM)
        done[0] += n_steps
        return real(self, placed, running)

    monkeypatch.setattr(TurnLanes, "train", train_and_signal)
    with pytest.raises(Interrupted):
        work(sweep, train_packs, lambda _, ready: ready)
    earlier, latest = saved_steps(sweep.run(sweep.entries[0].name).checkpoints)
    for i, entry in enumerate(sweep.entries):
        shutil.rmtree(sweep.run(entry.name).checkpoints / str(latest if i % 2 else earlier))
    work(sweep, train_packs, lambda _, ready: ready)
    assert set(sweep.states().values()) == {"done"}
    for name, alone in solo.items():
        assert losses(sweep.run(name)) == losses(alone)


def test_packs_of_two_shapes_lie_on_devices_of_their_own(workspace, solo, tmp_path):
    """Four simulated devices: two packs of two trials at once, each trial on its own device."""
    wider = TWO.replace("{", '{"model.ffn_size": 32, ')
    file = write_sweep(workspace, tmp_path, f"{TWO}, {wider}")
    one = ("--launcher", "packed", "--jobs", "1")
    made = command(workspace, file, tmp_path / "runs", *one)
    made["env"] |= {"XLA_FLAGS": simulated_devices(4)}
    done = subprocess.run(**made, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "runs" / "logs").glob("*.log")
    said = [line for line in log.read_text().splitlines() if " trials " in line]
    assert sorted(line.partition("; ")[2] for line in said) == ["devices 0, 1", "devices 2, 3"]
    assert all(line.startswith("2 trials vectorised over the devices") for line in said)
    sweep = SweepDirectory.open(tmp_path / "runs")
    by_fingerprint = {r.read_result()["fingerprint"]: r for r in solo.values()}
    for entry in sweep.entries[:2]:
        alone = by_fingerprint[entry.fingerprint]
        np.testing.assert_allclose(losses(sweep.run(entry.name)), losses(alone), RTOL)
    assert set(sweep.states().values()) == {"done"}


def test_what_fits_in_a_pack():
    base = Config()
    same = [
        {"seed": 3},
        {"optimizer.learning_rate": 1.0},
        {"optimizer.b2": 0.5},
        {"schedule.name": "wsd"},
        {"model.init_residual": "zero"},
        {"tracking.wandb_group": "x"},
        {"name": "x"},
    ]
    other = [
        {"model.d_model": 384},
        {"train.tokens": 10_000},
        {"train.batch_sequences": 64},
        {"data.tokenizer": "byte"},
        {"optimizer.name": "lion"},
        {"evaluate.every_tokens": 1000},
        {"optimizer.clip_norm": None},
    ]
    keys = [pack_key(overrides.override(base, change)) for change in same]
    assert all(key == pack_key(base) for key in keys)
    assert all(pack_key(overrides.override(base, change)) != pack_key(base) for change in other)


@pytest.mark.parametrize(
    ("lanes", "devices", "span", "parts"),
    [(8, 8, 1, 8), (6, 4, 1, 3), (5, 4, 1, 1), (4, 8, 2, 4), (4, 1, 1, 1), (3, 8, 4, 1)],
)
def test_parts_of_the_trial_axis(lanes, devices, span, parts):
    assert trial_parts(lanes, devices, span) == parts


def no_batches(_: int) -> list[Any]:
    return []


def test_short_packs_are_not_measured(monkeypatch):
    """The second program is compiled only where what is left to do could win it back."""
    seconds = iter([(5.0, 0.1), (9.0, 0.05)])
    monkeypatch.setattr(lanes_module, "_time", lambda *_: next(seconds))
    monkeypatch.setattr(lanes_module, "_copies", lambda states: states)
    monkeypatch.setattr(lanes_module, "VectorLanes", lambda *_: "vector")
    monkeypatch.setattr(lanes_module, "TurnLanes", lambda *_: "turns")

    layout = SimpleNamespace(mesh=SimpleNamespace(size=1))
    one_device = SimpleNamespace(layout=layout, steps_per_dispatch=1, config=Config())
    two: Any = [one_device, one_device]
    devices = jax.local_devices()[:1]
    assert lanes_module.choose_lanes(two, two, devices, no_batches, 900)[0] == "turns"
    seconds = iter([(5.0, 0.1), (9.0, 0.05)])
    assert lanes_module.choose_lanes(two, two, devices, no_batches, 1100)[0] == "vector"
    seconds = iter([(5.0, 0.1), (9.0, 0.2)])
    assert lanes_module.choose_lanes(two, two, devices, no_batches, 1100)[0] == "turns"


# --- the launcher -------------------------------------------------------------------------------


def test_a_sweep_from_the_command_line(workspace, sweep_file, solo, tmp_path):
    """Two workers; a diverging and a failing trial stop nobody and are listed."""
    grid = f'{GRID}, {{"optimizer.learning_rate": 1e30}}, {{"data.path": "nowhere.txt"}}'
    file = write_sweep(workspace, tmp_path, grid)
    done = run(workspace, file, tmp_path / "runs", "--jobs", "2")
    assert done.returncode == 1, done.stderr
    sweep = SweepDirectory.open(tmp_path / "runs")
    assert {entry.config.tracking.wandb_group for entry in sweep.entries} == {"tiny_sweep"}
    states = list(sweep.states().values())
    assert states == ["done"] * 4 + ["diverged", "failed"]
    assert "4 of 6 done" in done.stderr
    assert "went wrong: loss" in done.stdout
    assert "nowhere.txt" in done.stdout
    assert (sweep.run(sweep.entries[-1].name).path / "error.txt").read_text().count("Traceback")
    by_fingerprint = {r.read_result()["fingerprint"]: r for r in solo.values()}
    for entry in sweep.entries[:4]:
        assert losses(sweep.run(entry.name)) == losses(by_fingerprint[entry.fingerprint])
    before = {e.name: sweep.run(e.name).metrics.stat().st_mtime_ns for e in sweep.entries[:5]}
    again = run(workspace, file, tmp_path / "runs")
    assert again.returncode == 1
    assert before == {
        e.name: sweep.run(e.name).metrics.stat().st_mtime_ns for e in sweep.entries[:5]
    }


@pytest.mark.parametrize("launcher", ["local", "packed"])
def test_killed_at_work_a_sweep_continues_to_the_same_numbers(
    launcher, workspace, sweep_file, solo, tmp_path
):
    directory = tmp_path / "runs"
    made = command(workspace, sweep_file, directory, "--launcher", launcher)
    process = subprocess.Popen(
        **made, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    first = directory / "trials" / next(iter(solo)) / "metrics.jsonl"
    give_up = time.monotonic() + 200
    while (last_step(first) or {"step": 0})["step"] < 8:
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.01)
    process.kill()  # first: it would replace a worker that dies
    process.wait()
    for worker in workers_of(directory):
        os.kill(worker, signal.SIGKILL)
    sweep, soon = SweepDirectory.open(directory), time.monotonic() + 20
    while "running" in sweep.states().values():  # a killed process takes a moment to be gone
        assert time.monotonic() < soon
        time.sleep(0.01)
    assert set(sweep.states().values()) <= {"pending", "done"}
    done = run(workspace, sweep_file, directory, "--launcher", launcher)
    assert done.returncode == 0, done.stderr
    for name, alone in solo.items():
        np.testing.assert_allclose(losses(sweep.run(name)), losses(alone), RTOL)


def workers_of(directory: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"gpt_jax.sweep.worker" in words and str(directory).encode() in words:
            found.append(int(path.parent.name))
    return found


def test_a_worker_that_dies_at_work_is_replaced(workspace, sweep_file, tmp_path):
    """As the kernel kills it when memory runs out: its trial is failed, the rest is done."""
    directory = tmp_path / "runs"
    file = write_sweep(workspace, tmp_path, GRID, steps=100)
    process = subprocess.Popen(
        **command(workspace, file, directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    give_up = time.monotonic() + 200
    while not (directory / "sweep.json").exists() or not any(
        (last_step(directory / "trials" / e.name / "metrics.jsonl") or {"step": 0})["step"] > 2
        for e in SweepDirectory.open(directory).entries
    ):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    (worker,) = workers_of(directory)
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    states = list(SweepDirectory.open(directory).states().values())
    assert states == ["failed", "done", "done", "done"]
    assert "killed by SIGKILL (out of memory?)" in output


def test_mistakes_take_one_line(sweep_file, tmp_path, capsys):
    where = ["--workdir", str(tmp_path / "runs")]
    assert cli.main(["sweep", "run", str(sweep_file), *where, "--jobs", "0"]) == 2
    assert "--jobs 0; allowed: 1 or more" in capsys.readouterr().err
    assert cli.main(["sweep", "run", str(sweep_file), *where, "--only", "nothing"]) == 2
    assert "no trial 'nothing'" in capsys.readouterr().err
    assert cli.main(["sweep", "status", str(tmp_path / "none")]) == 2
    assert "holds no sweep" in capsys.readouterr().err


# --- trunks and branches ------------------------------------------------------------------------

WSD = """
from gpt_jax.sweep.branches import wsd_branches

def get_sweep():
    return wsd_branches(BASE, [{"optimizer.learning_rate": 0.01}], [10 * 64, 20 * 64], fraction=0.4)
"""


def test_a_branch_is_the_run_that_trained_all_by_itself(workspace, tmp_path):
    """The same config twice: off the trunk's checkpoint, and from its own first step."""
    file = write_sweep(workspace, tmp_path, "{}")
    file.write_text(file.read_text().split("def get_sweep")[0] + WSD)
    sweep = begin(file, tmp_path / "runs")
    work(sweep, train_alone, one_at_a_time)
    trunk, *branches = sweep.entries
    assert [r["step"] for r in records(sweep.run(trunk.name)) if "loss" in r] == list(range(1, 13))
    for entry in branches:
        facts = records(sweep.run(entry.name))
        train(entry.config, tmp_path / "alone" / entry.name)
        alone = RunDirectory(tmp_path / "alone" / entry.name)
        assert losses(sweep.run(entry.name)) == losses(alone)
        assert [r["step"] for r in facts if "loss" in r] == list(
            range(1, entry.config.train.tokens // 64 + 1)
        )
        assert sweep.run(entry.name).read_result()["cooled"] is True
        assert (
            sweep.run(entry.name).read_result()["validation_loss"]
            == alone.read_result()["validation_loss"]
        )
    assert sweep.run(trunk.name).read_result()["cooled"] is False
    rates = [r["learning_rate"] for r in records(sweep.run(branches[0].name)) if "loss" in r]
    np.testing.assert_allclose(rates[:6], 0.01, rtol=1e-6)
    assert rates[-1] == 0

    # A trunk whose batch was changed on the way has no past in common with the branch's config.
    past = sweep.run(trunk.name)
    text = past.metrics.read_text()
    past.metrics.write_text(
        re.sub(r'"tokens": (\d+)', lambda m: f'"tokens": {2 * int(m[1])}', text)
    )
    with pytest.raises(ValueError, match="by then, this config would have"):
        train(branches[0].config, tmp_path / "other", branch=(past, 6))


def test_what_is_no_branch_of_a_run_is_refused(workspace, sweep_file, solo, tmp_path, capsys):
    trunk = next(iter(solo.values()))
    wsd = ["--schedule.name", "wsd", "--schedule.cooldown_tokens", "640"]
    arguments = ["train", str(trunk.config), "--workdir", str(tmp_path / "branch"), *wsd]
    assert cli.main([*arguments, "--branch-from", str(trunk.path)]) == 2
    assert "they differ in schedule.name" in capsys.readouterr().err
    assert cli.main([*arguments, "--branch-from", str(tmp_path / "nothing")]) == 2
    assert "is not a run directory" in capsys.readouterr().err


class StopAfter:
    """A judge that stops a trial at the first call that ends after so many steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def due(self, done: int) -> bool:
        return done >= self.steps

    def verdict(self, done: int, history: History) -> str:
        assert len(history.losses) == done  # all steps were read
        return f"stopped early after {done} steps"


def test_a_stopped_trial_is_taken_up_again_to_the_same_bits(sweep_file, solo, tmp_path):
    """Stopped between its checkpoints it is saved, left alone until asked for, and goes on."""
    sweep = begin(sweep_file, tmp_path / "runs")
    name = sweep.entries[0].name
    limited = sweep.only([name])
    stopping = functools.partial(train_alone, stop=lambda *_: StopAfter(7))
    work(limited, stopping, one_at_a_time)
    assert sweep.state(name) == "stopped"
    assert sweep.outcome(name)["message"].startswith("stopped early after")
    (saved,) = saved_steps(sweep.run(name).checkpoints)[-1:]
    assert 7 <= saved < N_STEPS
    assert len(losses(sweep.run(name))) == saved
    work(limited, stopping, one_at_a_time)  # it wants no work
    assert sweep.state(name) == "stopped"
    work(limited, train_alone, one_at_a_time, retry=["stopped"])
    assert sweep.state(name) == "done"
    assert losses(sweep.run(name)) == losses(solo[name])
    results = [run.read_result()["validation_loss"] for run in (sweep.run(name), solo[name])]
    assert results[0] == results[1]


def test_status_shows_every_trial(sweep_file, tmp_path, capsys):
    sweep = begin(sweep_file, tmp_path / "runs")
    sweep.finish(sweep.entries[0].name, "failed", "no such thing")
    assert cli.main(["sweep", "status", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert all(entry.name in shown for entry in sweep.entries)
    assert "no such thing" in shown
    assert "4 trials: 3 pending, 1 failed" in shown
    assert json.loads((tmp_path / "runs" / "sweep.json").read_text())["name"] == "tiny_sweep"


def test_no_worker_outlives_a_launcher_that_gives_up(sweep_file, tmp_path, monkeypatch):
    """One worker cannot start, which ends the launcher; the other is at work, and is stopped."""
    sweep = begin(sweep_file, tmp_path / "sweep")
    programs = ["raise SystemExit(1)", "import time; print('at work', flush=True); time.sleep(60)"]
    started: list[subprocess.Popen] = []

    def start(workers: Workers, slot: int) -> subprocess.Popen:
        workers._identities[slot] = f"worker {slot}"
        started.append(
            subprocess.Popen([sys.executable, "-c", programs[slot]], stdout=subprocess.PIPE)
        )
        return started[-1]

    monkeypatch.setattr(Workers, "_start", start)
    arguments = Namespace(jobs=2, retry=[], only=None, launcher="local", stop=None)

    def launch() -> None:
        with Workers(sweep, arguments) as workers:
            assert started[1].stdout is not None
            assert started[1].stdout.readline() == b"at work\n"
            started[0].wait()
            watch(sweep, workers, [])

    with pytest.raises(ValueError, match=r"ended with status 1; its log: .*: it held no trial"):
        launch()
    assert started[1].returncode == -signal.SIGTERM


def test_experts_on_several_devices_take_turns_on_all_of_them():
    """A trial of two devices is not vectorised over eight: four trials at once, each on its own."""
    devices: Any = list(range(8))
    experts = {"model.n_experts": 4, "mesh.data": 1}
    config = overrides.override(Config(), experts | {"mesh.expert": 2})
    assert device_groups(config, devices) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert device_groups(overrides.override(config, {"mesh.data": 3}), devices) == [devices[:6]]
    alone = overrides.override(Config(), experts)
    assert device_groups(alone, devices[:1]) == [[0]]
    assert len(device_groups(alone, devices)) == 8
    dense = overrides.override(Config(), {"mesh.fsdp": 2, "mesh.data": 1})
    assert device_groups(dense, devices) == [[0, 1]]
    two: Any = [SimpleNamespace(config=config)] * 2
    _, why = lanes_module.choose_lanes(two, two, devices, no_batches, 100)
    assert why.startswith("in turns: experts")
