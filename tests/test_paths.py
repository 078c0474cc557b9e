"""Paths with a scheme are refused everywhere; runs of odd names train, or are refused at once."""

import contextlib
import os

import jax
import jax.numpy as jnp
import pytest

from gpt_jax import cli
from gpt_jax.config import Config, MixtureComponent, overrides
from gpt_jax.config.fields import AnyPath, LocalPath
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.runs.directory import RunDirectory, default_directory
from gpt_jax.runs.restoring import restore_params
from gpt_jax.storage import paths
from gpt_jax.sweep.worker import main as worker

SCHEMES = ("file:///tmp/run", "hf://o/n", "https://h.org/x", "az://c/x")
ADDRESS, UNKNOWN = "s3://b/run", "az://b/run"
FIELDS = (
    "base",
    "data.path",
    "data.tokenizer",
    "task.train",
    "task.validation",
    "task.test",
    "task.images",
    "distill.teacher",
    "evaluate.tasks_data",
)
LOCAL_FIELDS = ("data.tokenizer_path", "data.cache", "task.template")
VERBS = (
    ["train", "CONFIG", "--workdir", UNKNOWN],
    ["train", UNKNOWN],
    ["train", "CONFIG", "--branch-from", UNKNOWN],
    ["finetune", "CONFIG", "--from", UNKNOWN],
    ["predict", UNKNOWN, "--input", "x.jsonl"],
    ["predict", "RUN", "--input", UNKNOWN],
    ["predict", "RUN", "--input", "x.jsonl", "--output", UNKNOWN],
    ["data", "build", "--output", UNKNOWN],
    ["data", "build", "--config", UNKNOWN],
    ["data", "inspect", UNKNOWN],
    ["sweep", "run", "S", "--workdir", UNKNOWN],
    ["sweep", "plan", "S", "--csv", UNKNOWN],
    ["sweep", "status", UNKNOWN],
    ["sweep", "report", UNKNOWN],
    ["generate", UNKNOWN],
    ["generate", "RUN", "--retrieve", UNKNOWN],
    ["eval", UNKNOWN],
    ["eval", "RUN", "--data", UNKNOWN],
    ["eval", "RUN", "--text", UNKNOWN],
    ["eval", "RUN", "--out", UNKNOWN],
    ["serve", UNKNOWN],
    ["serve", "RUN", "--keys", UNKNOWN],
    ["inspect", UNKNOWN, "--prompt", "x"],
    ["inspect", "RUN", "--prompt", "x", "--output", UNKNOWN],
    ["compress", UNKNOWN, "--workdir", "x"],
    ["compress", "RUN", "--workdir", UNKNOWN],
    ["import", UNKNOWN],
    ["import", "FOLDER", "--workdir", UNKNOWN],
    ["export", UNKNOWN, "--to", "x"],
    ["export", "RUN", "--to", UNKNOWN],
    ["coord-check", UNKNOWN],
    ["coord-check", "CONFIG", "--out", UNKNOWN],
    ["plan", UNKNOWN],
    ["plan", "CONFIG", "--csv", UNKNOWN],
    ["fit", UNKNOWN, "--law", "L(C)"],
    ["fit", "runs.csv", "--law", "L(C)", "--json", UNKNOWN],
    ["fit", "runs.csv", "--law", "L(C)", "--plots", UNKNOWN],
    ["table", "chinchilla-table-2", "--runs", UNKNOWN],
    ["doctor", UNKNOWN],
)


ONLY_LOCAL = (
    ["train", ADDRESS],
    ["data", "build", "--config", ADDRESS],
    ["coord-check", ADDRESS],
    ["plan", ADDRESS],
    ["doctor", ADDRESS],
    ["train", "CONFIG", "--data.cache", ADDRESS],
    ["sweep", "run", ADDRESS],
    ["fit", "runs.csv", "--law", "L(C)", "--extension", ADDRESS],
    ["eval", "RUN", "--task-file", ADDRESS],
)
"""What is a program of the user's, or a cache."""


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_every_verb_refuses_an_unknown_scheme_before_it_does_anything(
    arguments, tmp_path, monkeypatch, capsys
):
    said = refused(arguments, tmp_path, monkeypatch, capsys)
    assert "az://b/run" in said
    assert "is not supported" in said or "is not on a file system of this machine" in said


@pytest.mark.parametrize("arguments", ONLY_LOCAL, ids=" ".join)
def test_what_a_bucket_cannot_hold_is_refused(arguments, tmp_path, monkeypatch, capsys):
    config = tmp_path / "c.py"
    config.write_text("from gpt_jax.config import *\ndef get_config(): return Config()\n")
    arguments = [str(config) if word == "CONFIG" else word for word in arguments]
    said = refused(arguments, tmp_path, monkeypatch, capsys)
    assert "s3://b/run is not on a file system of this machine" in said


@pytest.mark.parametrize("arguments", [v for v in VERBS if v not in ONLY_LOCAL], ids=" ".join)
def test_a_bucket_whose_library_is_missing_is_refused(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "_is_installed", lambda package: False)
    arguments = [word.replace("az://", "s3://") for word in arguments]
    said = refused(arguments, tmp_path, monkeypatch, capsys)
    assert "pip install 'gpt-jax[s3]'" in said or "is not on a file system" in said


def refused(arguments, tmp_path, monkeypatch, capsys) -> str:
    """What a verb says that ends with status 2, in one line and without a trace."""
    before = os.listdir(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert os.listdir(tmp_path) == before
    return said


@pytest.mark.parametrize("address", ["gs://b", "s3://b/", "gs://b/a/../c"])
def test_an_address_names_an_object(address):
    with pytest.raises(ValueError, match="names no object; give"):
        paths.given(address)


def test_an_address_has_the_arithmetic_of_a_path():
    address = paths.given("gs://b/runs/x")
    assert str(address / "result.json") == "gs://b/runs/x/result.json"
    assert (address.scheme, address.bucket, address.key) == ("gs", "b", "runs/x")
    assert paths.given("gs:/b/runs/x") == address == paths.Address("gs://b/runs") / "x"


def test_a_prompt_may_begin_like_an_address(tmp_path, capsys):
    assert cli.main(["generate", str(tmp_path), "--prompt", "https://example.org/ is"]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_a_worker_refuses_a_scheme(capsys):
    assert worker(["az://b/sweep"]) == 2
    assert "az:// is not supported" in capsys.readouterr().err


@pytest.mark.parametrize("key", FIELDS + LOCAL_FIELDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_field_that_takes_a_path_refuses_a_scheme(key, scheme):
    changes = {key: scheme} | ({"data.source": "text"} if key == "data.path" else {})
    with pytest.raises(ValueError, match=r"is not (on a file system|supported)") as caught:
        overrides.override(Config(), changes)
    assert key in str(caught.value)
    assert scheme in str(caught.value)


@pytest.mark.parametrize("key", FIELDS)
def test_fields_of_what_is_read_take_an_address(key, monkeypatch):
    changes = {key: ADDRESS} | ({"data.source": "text"} if key == "data.path" else {})
    if not key.startswith("task."):  # which go with others
        assert overrides.flatten(overrides.override(Config(), changes))[key] == ADDRESS
    monkeypatch.setattr(paths, "_is_installed", lambda package: False)
    with pytest.raises(ValueError, match=r"pip install 'gpt-jax\[s3\]'"):
        overrides.override(Config(), changes)


def test_the_lists_of_fields_above_are_whole():
    known = overrides.fields().items()
    assert {k for k, info in known if info.annotation == AnyPath} | {"data.path"} == set(FIELDS)
    assert {k for k, info in known if info.annotation == LocalPath} == set(LOCAL_FIELDS)
    with pytest.raises(ValueError, match="is not supported"):
        MixtureComponent(path=UNKNOWN)


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
