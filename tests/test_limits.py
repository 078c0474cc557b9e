"""Commands where a limit is met that only the system knows: memory, and who the user is."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

LIMIT = 8 << 30
"""Bytes of address space; jax alone reserves some two thirds of that."""

CONFIG = '''
from gpt_jax.config import *


def get_config() -> Config:
    """One layer, two of whose matrices have 25 GB each."""
    return Config(
        model=ModelConfig(
            vocab_size=257, seq_len=8, n_layers=1, d_model=64, n_heads=2, ffn_size=100_000_000
        ),
        data=DataConfig(
            source="text", path={text!r}, tokenizer="byte", validation="tail",
            validation_fraction=0.2,
        ),
        train=TrainConfig(tokens=16, batch_sequences=1),
    )
'''


@pytest.mark.slow
def test_out_of_memory_is_one_line_and_has_its_status(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("some words " * 50)
    (tmp_path / "c.py").write_text(CONFIG.format(text=str(text)))
    train = ["train", str(tmp_path / "c.py"), "--workdir", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "gpt_jax", *train],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("gpt-jax: out of memory: ")


def test_a_user_that_nobody_knows_builds_a_corpus(tmp_path):
    """As in a container: an id without an entry in /etc/passwd, and no HOME."""
    stranger = ["unshare", "--user", "--map-user=54321"]
    if shutil.which("unshare") is None or subprocess.run([*stranger, "true"]).returncode:
        pytest.skip("this system makes no user namespaces")
    text = tmp_path / "text.txt"
    text.write_text("some words " * 50)
    known = ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME")
    data = ["--source", "text", "--path", str(text), "--tokenizer", "byte"]
    data += ["--validation", "tail", "--validation-fraction", "0.2"]
    done = subprocess.run(
        [*stranger, sys.executable, "-m", "gpt_jax", "data", "build", *data,
         "--output", str(tmp_path / "corpus")],
        env={name: value for name, value in os.environ.items() if name not in known},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "corpus" / "manifest.json").is_file()
