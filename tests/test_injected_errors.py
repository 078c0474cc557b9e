"""A disk that is full or fails at one write: a line, status 5, and the same command continues.

The error is injected at the n-th call of one operation on a file of the test's directory.
"""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt_jax import cli, failures
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import read_records

EARLIER = Path(__file__).with_name("earlier")


@pytest.fixture(autouse=True)
def in_checkout(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr("gpt_jax.cost.hardware.measured_cpu_peak", lambda dtype: 1e10)


def failing(monkeypatch, operation: str, name: str, code: int) -> list[str]:
    """Let the first os.`operation` on a file whose path ends with `name` fail; returns where."""
    real, hit = getattr(os, operation), list[str]()

    def call(*arguments):
        at = arguments[-1]
        path = os.readlink(f"/proc/self/fd/{at}") if isinstance(at, int) else str(at)
        if not hit and (path.endswith(name) or f".{name}." in path):
            hit.append(path)
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    monkeypatch.setattr(os, operation, call)
    return hit


def said_in_one_line(captured, code: int) -> None:
    assert "Traceback" not in captured.err
    assert captured.err.splitlines()[-1].startswith("gpt-jax: cannot ")
    assert os.strerror(code) in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("operation", "name", "code"),
    [
        ("fsync", "manifest.json", errno.EIO),
        ("replace", "tokenizer_spec.json", errno.ENOSPC),
        ("replace", "train-00000.bin", errno.EIO),
        ("fsync", "validation-00000.bin", errno.ENOSPC),
        ("replace", "manifest.json", errno.ENOSPC),
    ],
)
def test_a_corpus_is_built_in_the_end(tmp_path, monkeypatch, capsys, operation, name, code):
    build = ["data", "build", "--source", "text", "--path", str(EARLIER / "corpus.txt")]
    build += ["--tokenizer", "byte", "--validation", "tail", "--validation-fraction", "0.2"]
    assert cli.main([*build, "--output", str(tmp_path / "calm")]) == 0
    with monkeypatch.context() as patch:
        hit = failing(patch, operation, name, code)
        status = cli.main([*build, "--output", str(tmp_path / "corpus")])
    assert hit, sorted(path.name for path in (tmp_path / "calm").iterdir())
    assert status == failures.DISK
    said_in_one_line(capsys.readouterr(), code)
    assert cli.main([*build, "--output", str(tmp_path / "corpus")]) == 0
    calm, corpus = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("calm", "corpus")
    )
    assert corpus == calm


@pytest.mark.parametrize(
    ("operation", "name", "code"),
    [
        ("replace", "config.json", errno.ENOSPC),
        ("fsync", "metrics.jsonl", errno.EIO),
        ("fsync", "manifest.json", errno.ENOSPC),
        ("replace", "result.json", errno.EIO),
    ],
)
def test_a_run_goes_on_to_the_same_losses(tmp_path, monkeypatch, capsys, operation, name, code):
    run = RunDirectory(shutil.copytree(EARLIER / "run", tmp_path / "run"))
    train = ["train", str(EARLIER / "config.py"), "--workdir", str(run.path)]
    with monkeypatch.context() as patch:
        hit = failing(patch, operation, name, code)
        status = cli.main(train)
    assert hit
    assert status == failures.DISK
    said_in_one_line(capsys.readouterr(), code)
    assert run.read_result() is None
    assert cli.main(train) == 0
    then = {r["step"]: r["loss"] for r in read_records(EARLIER / "metrics.jsonl") if "loss" in r}
    now = {r["step"]: r["loss"] for r in read_records(run.metrics) if "loss" in r}
    assert sorted(now) == sorted(then)
    np.testing.assert_allclose([now[s] for s in now], [then[s] for s in now], rtol=1e-5)
    assert json.loads(run.result.read_text())["n_tokens"] == 2560
