"""`gpt-jax doctor` says what is here, what is missing and why; it never downloads."""

import importlib.metadata
import json
import socket
from pathlib import Path

import pytest

from gpt_jax import cli
from gpt_jax.config import Config, DataConfig, overrides
from gpt_jax.data.build import build
from gpt_jax.verbs import doctor


@pytest.fixture
def output(tmp_path: Path, monkeypatch, capsys):
    """output(*arguments) -> {title: {name: value}}, with caches under tmp_path and no network."""

    def refuse(*arguments, **named):
        raise AssertionError("doctor must not connect to anything")

    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("gpt_jax.cost.cpu_speed.measured_cpu_peak", lambda dtype: 4.5e10)
    monkeypatch.setattr("gpt_jax.cost.cpu_speed.cpu_multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(doctor, "PLAIN_WIDTH", 400)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))

    def run(*arguments: str) -> dict[str, dict[str, str]]:
        assert cli.main(["doctor", *arguments]) == 0
        sections: dict[str, dict[str, str]] = {}
        rows: dict[str, str] = {}
        for line in capsys.readouterr().out.splitlines():
            if line and not line.startswith(" "):
                rows = sections.setdefault(line.strip(), {})
            elif line.strip():
                name, _, value = line.strip().partition("  ")
                rows[name] = value.strip()
        return sections

    return run


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A small corpus in the cache, beside one with a truncated shard and one unfinished."""
    (tmp_path / "text").write_text("some words to be read\n" * 200)
    config = DataConfig(
        source="text",
        path=str(tmp_path / "text"),
        tokenizer="byte",
        validation="tail",
        validation_fraction=0.1,
    )
    cache = tmp_path / "gpt_jax" / "data"
    for name in ("sound", "truncated"):
        build(config, cache / name, progress=False)
    (cache / "unfinished").mkdir()
    shard = next((cache / "truncated").glob("train-*[0-9].bin"))
    shard.write_bytes(shard.read_bytes()[:-1])
    return cache


@pytest.mark.smoke
def test_everything_that_is_here(output, corpus, tmp_path):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "jit_train-0123-cache").write_bytes(b"x" * 2048)
    found = output()
    for name in ("jax", "jaxlib", "flax", "optax", "numpy"):
        assert found["versions"][name] == importlib.metadata.version(name)
    assert "cpu, 45 GFLOP/s measured now with float32 operands" in found["devices"]["cpu"]
    assert "cores for this process" in found["devices"]["host"]
    runs = found["what runs for gpt2"]
    assert runs["attention"] == "blockwise: blocks of 128 tokens on cpu"
    assert runs["matrix products"].startswith("float32 operands")
    assert runs["steps a call"] == "up to 1"
    assert found["compiled programs"]["1 programs"].startswith("2.0 KiB in ")
    data = found["corpora"]
    assert "train, " in data["sound"]
    assert "validation tokens (byte)" in data["sound"]
    assert data["truncated"].startswith("damaged or unfinished: shard ")
    assert "the manifest says" in data["truncated"]
    assert data["unfinished"].startswith("damaged or unfinished: ")
    assert found["tokenizers"]["byte"] == "always there"


def write_config(path: Path, changes: dict[str, object]) -> str:
    path.write_text(json.dumps(overrides.to_dict(overrides.override(Config(), changes))))
    return str(path)


def test_what_would_run_follows_the_config(output, tmp_path):
    model = {"model.seq_len": 64, "model.n_layers": 48}
    changes = {"name": "mine", "compute.dtype": "bfloat16"} | model
    runs = output(write_config(tmp_path / "config.json", changes))["what runs for mine"]
    assert runs["attention"] == "reference: one block of at most 64 tokens"
    assert runs["matrix products"].startswith("bfloat16 operands")
    assert runs["layers"].startswith("scanned")


def test_absent_extras_come_with_the_line_that_installs_them(monkeypatch):
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("wandb", "sentencepiece"):
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    rows = dict(doctor.extras())
    assert rows["wandb"] == "absent: pip install 'gpt-jax[wandb]'"
    assert rows["sentencepiece"] == "absent: pip install 'gpt-jax[sentencepiece]'"
    assert "pytest" not in rows


def test_published_vocabularies_are_looked_for(shared_data, tmp_path):
    found = dict(doctor.tokenizers(Config(data=DataConfig(tokenizer_path=str(tmp_path)))))
    assert "no vocab.bpe (or merges.txt) found in" in found["gpt2"]
    path = str(shared_data / "tokenizers" / "gpt2")
    found = dict(doctor.tokenizers(Config(data=DataConfig(tokenizer_path=path))))
    assert found["gpt2"] == "found, 50,257 tokens"


class FakeDevice:
    def __init__(self, platform: str, device_kind: str, memory: int | None):
        self.platform, self.device_kind, self._memory = platform, device_kind, memory

    def memory_stats(self) -> dict[str, int] | None:
        return None if self._memory is None else {"bytes_limit": self._memory}


def test_accelerators_are_identified_or_said_to_be_unknown():
    known = [FakeDevice("gpu", "NVIDIA H100 80GB HBM3", 79 << 30)] * 8
    ((platform, said),) = doctor.describe_devices(known, "bfloat16")
    assert platform == "gpu"
    assert said == (
        "8 x NVIDIA H100 80GB HBM3, 79.0 GiB each, h100: 989 TFLOP/s each with bfloat16 operands"
    )
    ((_, said),) = doctor.describe_devices([FakeDevice("gpu", "NVIDIA New", None)], "bfloat16")
    assert said.startswith("1 x NVIDIA New, not in the table of chips")


def test_a_kernel_that_cannot_run_here_is_a_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    path = write_config(tmp_path / "config.json", {"compute.attention": "splash"})
    assert cli.main(["doctor", path]) == 2
    assert "splash attention needs a TPU" in capsys.readouterr().err
