"""tools/kill_runs.py: what it calls equal, and, slow, what is left of runs that it killed."""

import subprocess
import sys

import jax
import pytest
from once import once
from tiny_run import Workspace, make_workspace

from gpt_jax.config import Config, overrides
from gpt_jax.data.tokenizers.making import make_tokenizer
from gpt_jax.models.gpt import make_gpt
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import write_model
from gpt_jax.storage.atomic import write_json


@pytest.fixture
def tool(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "tools"))
    import kill_runs

    return kill_runs


def test_other_bits_and_other_records_are_differences(tool, tmp_path):
    small = {"model.d_model": 8, "model.n_heads": 2, "model.n_layers": 1, "model.seq_len": 8}
    config = overrides.override(Config(), small | {"model.vocab_size": 257})
    for name, seed, loss in (("a", 0, 3.0), ("b", 0, 3.0), ("c", 1, 3.5)):
        run = RunDirectory(tmp_path / name)
        params = make_gpt(config.model, config.compute).init(jax.random.key(seed))
        write_model(run, config, params, make_tokenizer("byte"), {})
        write_json(run.result, {"fingerprint": "x"})
        run.metrics.write_text(f'{{"step": 1, "tokens": 8, "loss": {loss}, "mfu": {seed}}}\n')
    assert tool.differing(tmp_path / "a", tmp_path / "b") == []
    found = tool.differing(tmp_path / "a", tmp_path / "c")
    assert found[0] == "metrics.jsonl differs from record 0 on: 1 records, 1"
    assert any("has other bits" in line for line in found[1:])
    assert tool.differing(tmp_path / "a", tmp_path / "d") == [f"{tmp_path / 'd'} has no result"]


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_has_the_same_bits(repository, tmp_path_factory, tmp_path):
    workspace = Workspace(once(tmp_path_factory, "tiny_run", make_workspace))
    done = subprocess.run(
        [
            *(sys.executable, str(repository / "tools" / "kill_runs.py")),
            *(str(workspace.config_file), "--kills", "6", "--directory", str(tmp_path / "kills")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("6 kills of ")


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_random_has_the_same_bits(repository, tmp_path):
    """Launchers and workers: every trial is done once."""
    command = [sys.executable, str(repository / "tools" / "kill_runs.py"), "--kills", "6"]
    sweep = ["--sweep", str(repository / "tests" / "earlier" / "sweep.py")]
    done = subprocess.run(
        [*command, *sweep, "--directory", str(tmp_path / "kills")],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("6 kills of ")
