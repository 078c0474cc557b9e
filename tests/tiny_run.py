"""A tiny experiment on a tiny text, and the real command line to train it with.

Everything that the tests of training share: one text, one cache of corpora and one of compiled
programs, and one uninterrupted reference run.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gpt_jax.config import Config, overrides
from gpt_jax.models.gpt import make_gpt
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import Record, read_records
from gpt_jax.steps.program import make_steps

CONFIG = '''
from gpt_jax.config import *

def get_config() -> Config:
    """160 steps; the first 20 have half a batch. Dropout and EMA have state to get wrong."""
    return Config(
        name="tiny",
        model=ModelConfig(
            vocab_size=257, seq_len=16, n_layers=1, d_model=16, n_heads=2, norm="rmsnorm",
            bias=False, dropout_residual=0.1,
        ),
        data=DataConfig(
            source="text", path={text!r}, tokenizer="byte", validation="tail",
            validation_fraction=0.1,
        ),
        train=TrainConfig(
            tokens=20 * 2 * 16 + 140 * 4 * 16, batch_sequences=4, ramp_from_sequences=2,
            ramp_tokens=20 * 2 * 16,
        ),
        optimizer=OptimizerConfig(learning_rate=0.03, ema_decay=0.9),
        evaluate=EvaluateConfig(every_tokens=2048, max_sequences=8, batch_sequences=8),
        checkpoint=CheckpointConfig(every_tokens=512, keep_best=1),
    )
'''
N_STEPS, RAMP_STEPS = 160, 20
SPEEDS = ("tokens_per_second", "step_seconds", "data_wait_seconds", "mfu")
"""What differs from run to run."""


class Workspace(NamedTuple):
    """A directory with the text, the config and the caches."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "tiny.py"

    @property
    def reference(self) -> RunDirectory:
        return RunDirectory(self.root / "reference")

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def environment(self) -> dict[str, str]:
        return {"XDG_CACHE_HOME": str(self.cache)}

    def config(self, **changes: Any) -> Config:
        settings = {key.replace("__", "."): value for key, value in changes.items()}
        return overrides.load(self.config_file, settings)

    def command(self, workdir: Path, *arguments: str) -> list[str]:
        train = [sys.executable, "-m", "gpt_jax", "train", str(self.config_file)]
        return [*train, "--workdir", str(workdir), *arguments]

    def train(self, workdir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            self.command(workdir, *arguments),
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def train_and_stop(
        self, workdir: Path, signal: int, step: int, delay: float
    ) -> tuple[int, str]:
        """Send a signal some time after the record of a step; returns the status and stderr."""
        process = subprocess.Popen(
            self.command(workdir),
            env=os.environ | self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        give_up = time.monotonic() + 300
        while process.poll() is None and last_step(workdir) < step:
            assert time.monotonic() < give_up
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal)
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors


def make_workspace(root: Path) -> None:
    """Write the text and the config, and train the reference run."""
    drawn = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "dogs", "run", "far"]
    lines = [" ".join(drawn.choices(words, k=drawn.randint(4, 12))) for _ in range(400)]
    text = root / "corpus.txt"
    text.write_text("\n".join(lines))
    workspace = Workspace(root)
    workspace.config_file.write_text(CONFIG.format(text=str(text)))
    done = workspace.train(workspace.reference.path)
    assert done.returncode == 0, done.stderr
    (root / "stdout").write_text(done.stdout)
    (root / "stderr").write_text(done.stderr)


def last_step(workdir: Path) -> int:
    """Step of the last whole record; 0 if there is none, or the file is being replaced."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return 0
    records = read_records(path)
    return records[-1]["step"] if records else 0


def records(run: RunDirectory) -> list[Record]:
    """All records, without what depends on the machine's speed."""
    return [
        {k: v for k, v in record.items() if k not in SPEEDS} for record in read_records(run.metrics)
    ]


def abstract_state(config: Config) -> Any:
    steps = make_steps(config, make_gpt(config.model, config.compute))
    return jax.eval_shape(steps.init, jax.random.key(0))


def assert_same_state(got: Any, want: Any) -> None:
    """Bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)
