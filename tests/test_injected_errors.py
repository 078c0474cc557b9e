"""A disk that is full or fails at one operation: a line, status 5, and the same command continues.

By default at some operations that matter; `-m slow` at every kind of operation of an undisturbed
build, run or sweep.
"""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from injected import Operation, injected

from gpt_jax import cli, failures
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import read_records
from gpt_jax.sweep import worker
from gpt_jax.sweep.load import load_sweep
from gpt_jax.sweep.store import SweepDirectory

EARLIER = Path(__file__).with_name("earlier")
CODES = (errno.ENOSPC, errno.EIO)


@pytest.fixture(autouse=True)
def in_checkout(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path.with_name("matplotlib")))
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr(worker, "prepare_process", lambda: None)
    monkeypatch.setattr("gpt_jax.cost.cpu_speed.measured_cpu_peak", lambda dtype: 1e10)


def said_in_one_line(captured, code: int) -> None:
    *before, last = captured.err.splitlines()
    assert "gpt-jax: " not in "".join(before)
    assert last.startswith("gpt-jax: cannot ")
    assert os.strerror(code) in last


def kinds(below: Path, run) -> Iterator[tuple[int, Operation, int]]:
    """Every kind of operation of an undisturbed command, numbered, with an error in turns."""
    with injected(below) as calm:
        run()
    assert len(calm.kinds()) > 10
    yield from zip(itertools.count(), calm.kinds(), itertools.cycle(CODES))


def build(output: Path) -> int:
    corpus = ["data", "build", "--source", "text", "--path", str(EARLIER / "corpus.txt")]
    corpus += ["--tokenizer", "byte", "--validation", "tail", "--validation-fraction", "0.2"]
    return cli.main([*corpus, "--output", str(output)])


@pytest.fixture
def corpora(tmp_path):
    """Where corpora are built: the cache of what was verified, which may fail, is elsewhere."""
    (tmp_path / "corpora").mkdir()
    return tmp_path / "corpora"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def check_build(corpora: Path, name: str, operation: Operation, code: int, capsys) -> None:
    """A build that meets an error says so; the same command then ends it as `calm`."""
    with injected(corpora, operation, code) as found:
        status = build(corpora / name)
    assert found.hit, operation
    assert status == failures.DISK, operation
    said_in_one_line(capsys.readouterr(), code)
    assert build(corpora / name) == 0
    assert contents(corpora / name) == contents(corpora / "calm")


@pytest.mark.parametrize(
    ("verb", "name", "code"),
    [
        ("fsync", "manifest.json", errno.EIO),
        ("replace", "tokenizer_spec.json", errno.ENOSPC),
        ("replace", "train-#.bin", errno.EIO),
        ("fsync", "validation-#.bin", errno.ENOSPC),
        ("replace", "manifest.json", errno.ENOSPC),
    ],
)
def test_a_corpus_is_built_in_the_end(corpora, capsys, verb, name, code):
    assert build(corpora / "calm") == 0
    check_build(corpora, "corpus", Operation(verb, name), code, capsys)


@pytest.mark.slow
def test_every_operation_of_a_build(corpora, capsys):
    for i, operation, code in kinds(corpora, lambda: build(corpora / "calm")):
        if operation.name != "calm":
            check_build(corpora, f"corpus{i}", operation, code, capsys)


def train(directory: Path, *more: str) -> int:
    return cli.main(["train", str(EARLIER / "config.py"), "--workdir", str(directory), *more])


@pytest.mark.parametrize(
    ("verb", "name", "code"),
    [
        ("replace", "config.json", errno.ENOSPC),
        ("fsync", "metrics.jsonl", errno.EIO),
        ("fsync", "manifest.json", errno.ENOSPC),
        ("replace", "result.json", errno.EIO),
    ],
)
def test_a_run_goes_on_to_the_same_losses(tmp_path, capsys, verb, name, code):
    run = RunDirectory(shutil.copytree(EARLIER / "run", tmp_path / "run"))
    with injected(run.path, Operation(verb, name), code) as found:
        status = train(run.path)
    assert found.hit
    assert status == failures.DISK
    said_in_one_line(capsys.readouterr(), code)
    assert run.read_result() is None
    assert train(run.path) == 0
    then = {r["step"]: r["loss"] for r in read_records(EARLIER / "metrics.jsonl") if "loss" in r}
    now = losses(run)
    assert sorted(now) == sorted(then)
    np.testing.assert_allclose([now[s] for s in now], [then[s] for s in now], rtol=1e-5)
    assert json.loads(run.result.read_text())["n_tokens"] == 2560


def losses(run: RunDirectory) -> dict[int, float]:
    return {r["step"]: r["loss"] for r in read_records(run.metrics) if "loss" in r}


@pytest.mark.slow
def test_every_operation_of_a_run(tmp_path, capsys):
    short, calm = ("--train.tokens", "1280"), RunDirectory(tmp_path / "calm")
    for i, operation, code in kinds(tmp_path, lambda: train(calm.path, *short)):
        if operation.name == "calm":
            continue
        run = RunDirectory(tmp_path / f"run{i}")
        shutil.rmtree(tmp_path / "cache")
        with injected(tmp_path, operation, code) as found:
            status = train(run.path, *short)
        assert found.hit, operation
        captured = capsys.readouterr()
        if status:
            assert status == failures.DISK, (operation, captured.err)
            said_in_one_line(captured, code)
            assert run.read_result() is None
            assert train(run.path, *short) == 0, operation
        assert losses(run) == losses(calm), operation


def sweep(directory: Path, *more: str) -> int:
    """Two trials of ten steps, by a worker in this process."""
    name, trials = load_sweep(str(EARLIER / "sweep.py"), {"train.tokens": "640"})
    try:
        SweepDirectory.create(directory, name, str(EARLIER / "sweep.py"), trials[:2])
    except OSError as error:
        told = failures.tell(error)
        assert told is not None
        return told.status
    return worker.main([str(directory), *more])


def check_sweep(
    tmp_path: Path, name: str, operation: Operation, code: int, capsys, more: tuple[str, ...] = ()
) -> str:
    """What a sweep whose worker meets an error says of it; the next worker ends it as `calm`."""
    place = tmp_path / name
    with injected(tmp_path, operation, code) as found:
        status = sweep(place, *more)
    assert found.hit, operation
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    said = [line for line in captured.out.splitlines() if ": failed: " in line]
    assert status in (0, failures.DISK), operation
    assert len(said) <= (2 if more else 1), "of one trial alone, or of those of one pack"
    assert sweep(place, *more, "--retry", "failed") == 0
    made, calm = SweepDirectory.open(place), SweepDirectory.open(tmp_path / "calm")
    assert set(made.states().values()) == {"done"}, operation
    for entry in made.entries:
        assert losses(made.run(entry.name)) == losses(calm.run(entry.name))
    return "\n".join(said)


def test_a_trial_that_meets_an_error_has_failed_and_its_sweep_goes_on(tmp_path, capsys):
    assert sweep(tmp_path / "calm") == 0
    at = Operation("replace", "config.json")
    said = check_sweep(tmp_path, "sweep", at, errno.ENOSPC, capsys)
    assert f"config.json: {os.strerror(errno.ENOSPC)}" in said


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_every_operation_of_a_sweep(tmp_path, capsys, packed):
    more = ("--packed",) if packed else ()
    for i, operation, code in kinds(tmp_path, lambda: sweep(tmp_path / "calm", *more)):
        if operation.name != "calm":
            shutil.rmtree(tmp_path / "cache")
            check_sweep(tmp_path, f"sweep{i}", operation, code, capsys, more)
