"""A run's directory: what is in it, who may write it, and how a finished model is loaded again.

config.json     the config, its fingerprint, and where the run came from
metrics.jsonl   a line per step and per validation
checkpoints/    see gpt_jax.runs.checkpoint
tokenizer/      of the corpus, so that the directory alone can generate
loss.png        the loss curve
result.json     written last: the run is done when it exists
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from gpt_jax.config import Config, overrides
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.tracking import Record, provenance
from gpt_jax.storage import paths, places
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.checksum import json_checksum
from gpt_jax.storage.json_files import Damaged, read_object
from gpt_jax.storage.locks import Held, locked

if TYPE_CHECKING:
    pass


class Busy(ValueError):
    """Another process is training in the directory."""


class RunDirectory:
    """Paths of a run, and its two JSON records."""

    def __init__(self, path: str | PurePath):
        """path: of the run, or its address in a bucket: `self.path` is then its copy here."""
        self.path = places.on_disk(path)
        self.config, self.result = self.path / "config.json", self.path / "result.json"
        self.metrics, self.loss_curve = self.path / "metrics.jsonl", self.path / "loss.png"
        self.checkpoints, self.tokenizer = self.path / "checkpoints", self.path / "tokenizer"

    def read_config(self) -> Config | None:
        """The config of the run that is here, if there is one. Raises `Damaged`."""
        if not self.config.exists():
            return None
        try:
            return overrides.load(self.config)
        except Damaged:
            raise
        except ValueError as error:
            raise Damaged(f"{self.config} is damaged, or of another version: {error}") from None

    def require_config(self) -> Config:
        """The config of the run that is here. Raises ValueError if there is none."""
        config = self.read_config()
        if config is None:
            raise ValueError(f"{self.path} is not a run directory: it has no config.json")
        return config

    def read_facts(self) -> Record | None:
        """All that config.json records: sizes, devices, data, provenance; None without a run."""
        return read_object(self.config, "config") if self.config.exists() else None

    def read_result(self) -> Record | None:
        """result.json of a finished run; None if the run is not done. Raises `Damaged`."""
        return read_object(self.result, "fingerprint") if self.result.exists() else None

    def write_config(self, config: Config, facts: Record) -> None:
        """config.json: the config, its fingerprint, provenance, and further facts."""
        if config.extensions:
            from gpt_jax.config import extensions

            extensions.write_copies(config.extensions, self.path)
        tree = overrides.to_dict(config)
        record = {"fingerprint": overrides.fingerprint(config), **facts, **provenance()}
        write_json(self.config, {"config": tree, "config_digest": json_checksum(tree), **record})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The directory is this block's alone; the kernel frees the lock of a killed process, and
        in a bucket its lease runs out.

        Of the processes of one run, the first takes it for all. Raises ValueError if it cannot be
        written, and Busy if somebody else is training in it.
        """
        paths.check_run_directory(self.path)
        if not is_writer():
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                if copy := places.copy_of(self.path):
                    stack.enter_context(copy.taken(copy.name_of(self.path)))
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path / ".lock", wait=False))
            except Held as held:
                raise Busy(
                    f"another process is training in {self.path} ({held}); wait for it, or choose "
                    f"another --workdir"
                ) from None
            except OSError as error:
                raise ValueError(
                    f"cannot write the run directory {self.path}: {error.strerror}; choose another "
                    f"with --workdir"
                ) from None
            yield


def default_directory(config: Config) -> Path:
    """runs/NAME, in the working directory. Raises ValueError for a name that leads elsewhere."""
    parts = Path(config.name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(
            f"name = {config.name}; the run's directory is runs/NAME: give a name within runs/ "
            f"(--name), or --workdir DIR"
        )
    return Path("runs") / config.name
