import argparse

import pytest

from gpt_jax.data import Corpus
from gpt_jax.verbs.data import add_arguments, run

TAIL = ["--validation", "tail", "--validation-fraction", "0.1"]


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def test_build_then_inspect(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("One two [three].\n" * 50)
    options = [
        "--source",
        "text",
        "--tokenizer",
        "char",
        "--validation",
        "tail",
        "--validation-fraction",
        "0.1",
    ]
    path, output = str(tmp_path / "t.txt"), str(tmp_path / "out")
    assert call("build", *options, "--path", path, "--output", output) == 0
    assert "not checked" in capsys.readouterr().out
    assert call("inspect", output) == 0
    shown = capsys.readouterr().out
    corpus = Corpus(output)
    for expected in ("all match", "765", "85", "1.000", corpus.fingerprint, "One two [three]."):
        assert expected in shown
    (tmp_path / "out" / "train-00000.bin").write_bytes(b"\0" * 1530)
    assert call("inspect", output, "--no-verify") == 0
    with pytest.raises(ValueError, match=r"train-00000.bin has changed"):
        call("inspect", output)


def test_build_in_the_cache(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("abc" * 50)
    options = [
        "--source",
        "text",
        "--tokenizer",
        "byte",
        "--validation",
        "tail",
        "--validation-fraction",
        "0.1",
    ]
    place = ["--path", str(tmp_path / "t.txt"), "--cache", str(tmp_path / "cache")]
    assert call("build", *options, *place) == 0
    [built] = (tmp_path / "cache").iterdir()
    assert Corpus(built).split("train").n_tokens == 135


def test_data_section_of_a_config_file(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("abc" * 50)
    (tmp_path / "c.py").write_text(
        "from gpt_jax.config import Config, DataConfig\n"
        "def get_config():\n"
        f"    return Config(data=DataConfig(source='text', path={str(tmp_path / 't.txt')!r},\n"
        "        tokenizer='byte', validation='tail', validation_fraction=0.5))\n"
    )
    arguments = ["--config", str(tmp_path / "c.py"), "--validation-fraction", "0.2"]
    assert call("build", *arguments, "--output", str(tmp_path / "out")) == 0
    assert Corpus(tmp_path / "out").split("validation").n_tokens == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--source", "txt"], r"data.source = txt; allowed: .*stdlib\|text"),
        (["build", "--source", "text"], "needs data.path"),
        (["build", "--validation-fraction", "2"], "data.validation_fraction = 2"),
        (["build", "--workers", "0"], "--workers 0; allowed: 1 or more"),
        (["inspect", "nowhere"], "nowhere holds no finished corpus"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        call(*arguments)
