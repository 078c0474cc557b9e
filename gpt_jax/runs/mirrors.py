"""Mirrors of a run's metrics: Weights & Biases and TensorBoard, each imported if it is asked for.

Must not import jax.
"""

import secrets
from pathlib import Path

from gpt_jax.config import Config, overrides
from gpt_jax.runs.history import Record
from gpt_jax.runs.tracking import Mirror
from gpt_jax.storage.atomic import write_atomically

WANDB_NAME = 64
"""Characters of a run's name in its id: Weights & Biases allows 128 in all."""


def make_mirrors(config: Config, directory: Path) -> list[Mirror]:
    """The mirrors that the config asks for."""
    mirrors: list[Mirror] = []
    if config.tracking.wandb:
        mirrors.append(WandbMirror(config, directory))
    if config.tracking.tensorboard:
        mirrors.append(TensorBoardMirror(directory / "tensorboard"))
    return mirrors


def wandb_run_id(config: Config, directory: Path) -> str:
    """The id of a run directory's page: a resumed run continues it, another directory has its own.

    It is drawn once and kept in wandb_id. A run that began before that was kept goes on under the
    id that it has: name and fingerprint.
    """
    path = directory / "wandb_id"
    if path.exists():
        return path.read_text().strip()
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in config.name)[:WANDB_NAME]
    old = f"{name}-{overrides.fingerprint(config)}"
    begun = any((directory / "wandb").glob(f"*run-*-{old}"))
    run_id = old if begun else f"{old}-{secrets.token_hex(4)}"
    write_atomically(path, run_id + "\n")
    return run_id


class WandbMirror:
    """Weights & Biases, offline unless told otherwise."""

    def __init__(self, config: Config, directory: Path):
        try:
            import wandb
        except ImportError:
            raise ValueError(
                "tracking.wandb = true needs wandb: pip install 'gpt-jax[wandb]'"
            ) from None
        self._run = wandb.init(
            project=config.tracking.wandb_project,
            group=config.tracking.wandb_group or None,
            name=config.name,
            id=wandb_run_id(config, directory),
            resume="allow",
            reinit="create_new",  # a packed sweep has several runs in one process
            mode=config.tracking.wandb_mode,
            dir=str(directory),
            config=overrides.flatten(config),
            settings=wandb.Settings(silent=True),
        )

    def log(self, record: Record) -> None:
        values = {k: v for k, v in record.items() if k != "step"}
        self._run.log(values, step=record["step"])

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class TensorBoardMirror:
    """TensorBoard event files."""

    def __init__(self, directory: Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ValueError(
                "tracking.tensorboard = true needs tensorboardX: pip install 'gpt-jax[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(directory))

    def log(self, record: Record) -> None:
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])

    def close(self, finished: bool) -> None:
        self._writer.close()
