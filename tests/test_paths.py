"""Paths with a scheme are refused everywhere; runs of odd names train, or are refused at once."""

import contextlib
import os

import jax
import jax.numpy as jnp
import pytest

from gpt_jax import cli
from gpt_jax.config import Config, MixtureComponent, overrides
from gpt_jax.config.fields import LocalPath
from gpt_jax.runs.checkpoint import Checkpoints, restore_params
from gpt_jax.runs.directory import RunDirectory, default_directory
from gpt_jax.storage import paths
from gpt_jax.sweep.worker import main as worker

SCHEMES = ("s3://b/run", "gs://b/run", "file:///tmp/run", "hf://o/n", "https://h.org/x", "az://c/x")
ADDRESS = "s3://b/run"
FIELDS = (
    "base",
    "data.path",
    "data.tokenizer",
    "data.tokenizer_path",
    "data.cache",
    "task.train",
    "task.validation",
    "task.test",
    "task.images",
    "task.template",
    "distill.teacher",
)
VERBS = (
    ["train", "CONFIG", "--workdir", ADDRESS],
    ["train", ADDRESS],
    ["train", "CONFIG", "--branch-from", ADDRESS],
    ["finetune", "CONFIG", "--from", ADDRESS],
    ["predict", ADDRESS, "--input", "x.jsonl"],
    ["predict", "RUN", "--input", ADDRESS],
    ["predict", "RUN", "--input", "x.jsonl", "--output", ADDRESS],
    ["data", "build", "--output", ADDRESS],
    ["data", "build", "--config", ADDRESS],
    ["data", "inspect", ADDRESS],
    ["sweep", "run", "S", "--workdir", ADDRESS],
    ["sweep", "plan", "S", "--csv", ADDRESS],
    ["sweep", "status", ADDRESS],
    ["sweep", "report", ADDRESS],
    ["generate", ADDRESS],
    ["generate", "RUN", "--retrieve", ADDRESS],
    ["eval", ADDRESS],
    ["eval", "RUN", "--data", ADDRESS],
    ["eval", "RUN", "--text", ADDRESS],
    ["eval", "RUN", "--out", ADDRESS],
    ["serve", ADDRESS],
    ["serve", "RUN", "--keys", ADDRESS],
    ["inspect", ADDRESS, "--prompt", "x"],
    ["inspect", "RUN", "--prompt", "x", "--output", ADDRESS],
    ["compress", ADDRESS, "--workdir", "x"],
    ["compress", "RUN", "--workdir", ADDRESS],
    ["import", ADDRESS],
    ["import", "FOLDER", "--workdir", ADDRESS],
    ["export", ADDRESS, "--to", "x"],
    ["export", "RUN", "--to", ADDRESS],
    ["coord-check", ADDRESS],
    ["coord-check", "CONFIG", "--out", ADDRESS],
    ["plan", ADDRESS],
    ["plan", "CONFIG", "--csv", ADDRESS],
    ["fit", ADDRESS, "--law", "L(C)"],
    ["fit", "runs.csv", "--law", "L(C)", "--json", ADDRESS],
    ["fit", "runs.csv", "--law", "L(C)", "--plots", ADDRESS],
    ["table", "chinchilla-table-2", "--runs", ADDRESS],
    ["doctor", ADDRESS],
)


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_every_verb_refuses_a_scheme_before_it_does_anything(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "s3://b/run is not on a file system of this machine" in said
    assert not os.listdir(tmp_path)


def test_a_prompt_may_begin_like_an_address(tmp_path, capsys):
    assert cli.main(["generate", str(tmp_path), "--prompt", "https://example.org/ is"]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_a_worker_refuses_a_scheme(capsys):
    assert worker(["s3://b/sweep"]) == 2
    assert "is not on a file system" in capsys.readouterr().err


@pytest.mark.parametrize("key", FIELDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_field_that_takes_a_path_refuses_a_scheme(key, scheme):
    changes = {key: scheme} | ({"data.source": "text"} if key == "data.path" else {})
    with pytest.raises(ValueError, match="is not on a file system") as caught:
        overrides.override(Config(), changes)
    assert key in str(caught.value)
    assert scheme in str(caught.value)


def test_the_list_of_fields_above_is_whole():
    typed = {k for k, info in overrides.fields().items() if info.annotation == LocalPath}
    assert typed | {"data.path"} == set(FIELDS)
    with pytest.raises(ValueError, match="is not on a file system"):
        MixtureComponent(path=ADDRESS)


def test_a_data_set_is_named_as_its_library_names_it():
    name = {"data.source": "huggingface", "data.path": "allenai/c4"}
    assert overrides.override(Config(), name).data.path == "allenai/c4"


@pytest.mark.parametrize(
    "name", ["a b", "ü", "日本", "-x", "a%41", "a#b", "{a}", "a'b\"", "$x", "a:b"]
)
def test_odd_names_are_read_again(name, tmp_path):
    place = RunDirectory(tmp_path / name).checkpoints
    paths.check_run_directory(tmp_path / name)
    with contextlib.closing(Checkpoints(place, Config())) as checkpoints:
        checkpoints.save(1, {"params": {"a": jnp.arange(3.0)}})
    read = restore_params(place, {"a": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert read["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["[1]", "a]", "[", "a*", "a?b", "a\\b", "s3:", "gs:/x"])
def test_names_that_could_not_be_read_are_refused_before_training(
    name, tmp_path, monkeypatch, capsys
):
    config = tmp_path / "c.py"
    config.write_text("from gpt_jax.config import *\ndef get_config(): return Config()\n")
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    assert cli.main(["train", str(config), "--workdir", str(tmp_path / name / "run")]) == 2
    said = capsys.readouterr().err
    assert "cannot be written to a path with" in said
    assert said.count("\n") == 1
    assert not (tmp_path / name).exists()
    with pytest.raises(ValueError, match="cannot be written"):
        Checkpoints(tmp_path / name, Config())


def test_a_folder_above_the_run_counts(tmp_path, monkeypatch):
    place = tmp_path / "[project]"
    place.mkdir()
    monkeypatch.chdir(place)
    with pytest.raises(ValueError, match=r"with \[ \]"):
        paths.check_run_directory("run")


def test_a_checkpoint_that_was_moved_to_such_a_name_says_so(tmp_path):
    with pytest.raises(ValueError, match="rename it"):
        paths.check_readable(tmp_path / "a\\b")
    paths.check_readable(tmp_path / "[a]")  # reads all the same


@pytest.mark.parametrize("name", ["", "..", "a/../../b", "/etc/x"])
def test_a_run_is_not_named_out_of_its_folder(name):
    with pytest.raises(ValueError, match="give a name within runs/"):
        default_directory(Config(name=name))
