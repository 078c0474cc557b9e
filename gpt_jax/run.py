"""A run's directory: what is in it, who may write it, and how a finished model is loaded again.

config.json     the config, its fingerprint, and where the run came from
metrics.jsonl   a line per step and per validation
checkpoints/    see gpt_jax.checkpoint
tokenizer/      of the corpus, so that the directory alone can generate
loss.png        the loss curve
result.json     written last: the run is done when it exists
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax import overrides
from gpt_jax.checkpoint_files import Which
from gpt_jax.config import Config
from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer
from gpt_jax.processes import is_writer
from gpt_jax.tracking import Record, provenance, write_json

if TYPE_CHECKING:
    from gpt_jax.models.gpt import GPT, Params
    from gpt_jax.sharding import Layout


class RunDirectory:
    """Paths of a run, and its two JSON records."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config, self.result = self.path / "config.json", self.path / "result.json"
        self.metrics, self.loss_curve = self.path / "metrics.jsonl", self.path / "loss.png"
        self.checkpoints, self.tokenizer = self.path / "checkpoints", self.path / "tokenizer"

    def read_config(self) -> Config | None:
        """The config of the run that is here, if there is one."""
        return overrides.load(self.config) if self.config.exists() else None

    def require_config(self) -> Config:
        """The config of the run that is here. Raises ValueError if there is none."""
        config = self.read_config()
        if config is None:
            raise ValueError(f"{self.path} is not a run directory: it has no config.json")
        return config

    def read_facts(self) -> Record | None:
        """All that config.json records: sizes, devices, data, provenance; None without a run."""
        return json.loads(self.config.read_text()) if self.config.exists() else None

    def read_result(self) -> Record | None:
        """What the finished run came to; None if it is not done."""
        return json.loads(self.result.read_text()) if self.result.exists() else None

    def write_config(self, config: Config, facts: Record) -> None:
        """config.json: the config, its fingerprint, provenance, and further facts."""
        record = {"fingerprint": overrides.fingerprint(config), **facts, **provenance()}
        write_json(self.config, {"config": overrides.to_dict(config), **record})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The directory is this block's alone; the kernel frees the lock of a killed process.

        Of the processes of one run, the first takes it for all. Raises ValueError if it cannot be
        written, or somebody else is training in it.
        """
        if not is_writer():
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise ValueError(
                f"cannot write the run directory {self.path}: {error.strerror}; choose another "
                f"with --workdir"
            ) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another process is training in {self.path}; wait for it, or choose another "
                    f"--workdir"
                ) from None
            yield
        finally:
            os.close(descriptor)


def load_run(
    path: str | Path, checkpoint: Which = "latest"
) -> "tuple[Config, GPT, Params, Tokenizer]":
    """Config, model, parameters (their moving average if kept) and tokenizer of a run.

    Raises ValueError if `path` holds no run, or not that checkpoint.
    """
    run = RunDirectory(path)
    config = run.require_config()
    model, params = load_model(run, config, checkpoint)
    return config, model, params, load_tokenizer(run.tokenizer)


def load_model(
    run: RunDirectory, config: Config, checkpoint: Which, layout: "Layout | None" = None
) -> "tuple[GPT, Params]":
    """The model of a run, computed as `config` says, and its parameters on the layout's mesh."""
    import jax

    from gpt_jax.checkpoint import restore_params
    from gpt_jax.models.gpt import make_gpt

    model = make_gpt(config.model, config.compute, layout)
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    if layout is not None:
        abstract = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            abstract,
            layout.shardings(model.param_axes()),
        )
    field = "ema" if config.optimizer.ema_decay else "params"
    return model, restore_params(run.checkpoints, abstract, checkpoint, field)


def default_directory(config: Config) -> Path:
    """runs/NAME, in the working directory."""
    return Path("runs") / config.name
