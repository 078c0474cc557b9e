"""Checkpoints: saved in the background with Orbax, verified when read, bound to a config.

The state may be any pytree: its leaves are saved by their paths, as in params/embedding/tokens, and
no class is needed to read them back. The directory is on a POSIX file system that all hosts share;
`gpt_jax.runs.checkpoint_files` tells what is in it, and why a kill at any moment is harmless.

Orbax takes half a second to import and is imported when first used. Must not import flax.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from gpt_jax.config import Config, overrides
from gpt_jax.errors import SaveFailed
from gpt_jax.runs import checkpoint_files as files
from gpt_jax.runs.checkpoint_files import Manifest
from gpt_jax.storage import paths, places

SAVE_TIMEOUT_SECONDS = 3600


class Checkpoints:
    """The checkpoints of one run: saves, retention, and restoring with a fallback.

    Keeps the newest `checkpoint.keep_latest` and, besides, the `checkpoint.keep_best` with the
    lowest validation loss and those of the steps that it was told to `keep`. All processes of a run
    call every method alike.
    """

    def __init__(
        self,
        directory: str | Path,
        config: Config,
        *,
        allow_changed: bool = False,
        sealed: Mapping[str, str | None] | None = None,
    ):
        """Open, or make, the directory, and clear what a killed save left behind.

        `allow_changed`: restore although the saved config's fingerprint differs; `sealed`: digests
        that are kept with every checkpoint, see `Manifest`.
        Raises ValueError if the directory cannot be written.
        """
        paths.check_run_directory(directory)
        self.directory = Path(directory).absolute()
        self.config = config
        self.allow_changed = allow_changed
        self._sealed = dict(sealed or {})
        self._kept: frozenset[int] = frozenset()
        self._last: int | None = None
        self._pending: concurrent.futures.Future[None] | None = None
        self._finisher = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._apart = jax.process_count() > 1 and places.copy_of(self.directory) is not None
        self._checkpointer = _async_checkpointer(self._apart)
        for logger in ("absl", "asyncio"):
            logging.getLogger(logger).addFilter(_not_raised_anyway)
        if self._apart or jax.process_index() == 0:
            files.prepare(self.directory)
        if self._apart and jax.process_index() == 0:
            places.commit(self.directory.parent)  # deletes what an unfinished save left
        _barrier("checkpoints opened")
        self._refresh()

    def keep(self, steps: frozenset[int]) -> None:
        """Delete the checkpoints of these steps never. To be called before the first save."""
        self._kept = steps

    def save(self, step: int, state: Any, validation_loss: float | None = None) -> None:
        """Save `state` as that of `step`; writing goes on in the background.

        Returns once the arrays are on the host, and their buffers may be donated. A step
        that this run has just saved or restored is not written again; its loss is noted. Later
        checkpoints, of a run that was rewound or found corrupt, are deleted with this save.
        Raises OSError if this save cannot begin or the one before it failed.
        """
        self.wait()
        if step == self._last and step in self.steps():
            if validation_loss is not None and jax.process_index() == 0:
                path = self.directory / str(step)
                manifest = files.read_manifest(path)
                noted = dataclasses.replace(manifest, validation_loss=validation_loss)
                with self._one_line_errors(step):
                    files.write_manifest(path, noted)
                    places.commit(self.directory.parent)
            return
        import orbax.checkpoint as ocp

        arrays = files.named_leaves(state)
        described = {name: [list(x.shape), str(x.dtype)] for name, x in arrays.items()}
        config = overrides.to_dict(self.config)
        manifest = Manifest(step, validation_loss, config, described, {}, self._sealed)
        unfinished = self.directory / f"{step}.tmp"
        with self._one_line_errors(step):
            _refuse_full_disk(self.directory, sum(x.nbytes for x in arrays.values()))
            if self._apart:
                self._unseal(step)
            if self._apart or jax.process_index() == 0:
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
            self._checkpointer.save(unfinished / "state", args=ocp.args.PyTreeSave(arrays))
        self._pending = self._finisher.submit(self._finish, unfinished, manifest)
        self._last = step

    def wait(self) -> None:
        """Wait for the save in progress. Raises OSError naming the directory if it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except OSError:
                self._last = None
                raise
            _barrier("checkpoint saved")
            self._refresh()

    def close(self) -> None:
        """Wait, and end the background threads."""
        try:
            self.wait()
        finally:
            self._finisher.shutdown()
            self._checkpointer.close()

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, ascending."""
        return files.saved_steps(self.directory)

    def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, int]:
        """The saved state, bit for bit, on the devices that `abstract_state` names, and its step.

        Without `step`, the latest checkpoint; if that is corrupt, a warning names it and the one
        before is taken. Raises ValueError if there is none that is sound, if `step` is not there
        or corrupt, if the config has changed, or if the arrays do not fit.
        """
        from gpt_jax.runs import restoring

        self.wait()
        config = None if self.allow_changed else self.config
        state, self._last = restoring.resume(
            self.directory, abstract_state, step, config, self._sealed
        )
        return state, self._last

    def _finish(self, unfinished: Path, manifest: Manifest) -> None:
        """In the background: once the arrays are written, seal, name and make room."""
        with self._one_line_errors(manifest.step):
            try:
                self._checkpointer.wait_until_finished()
                elsewhere = self._exchange(unfinished, manifest.step) if self._apart else {}
                if jax.process_index() == 0:
                    files.commit(unfinished, manifest, elsewhere)
                    self._make_room(manifest.step)
                    places.commit(self.directory.parent)
            finally:
                # Gone by now unless something failed: then it only takes room on the disk.
                if self._apart or jax.process_index() == 0:
                    shutil.rmtree(unfinished, ignore_errors=True)

    def _exchange(self, unfinished: Path, step: int) -> dict[str, list[int]]:
        """Store this process's shards, or, in the first, wait for those of the others."""
        from gpt_jax.runs import apart

        if index := jax.process_index():
            apart.store_shards(unfinished, step, index)
            return {}
        n_processes = jax.process_count()
        return apart.await_shards(unfinished, step, n_processes, SAVE_TIMEOUT_SECONDS)

    def _unseal(self, step: int) -> None:
        """Delete a checkpoint of this step before any process stores shards in its place."""
        if jax.process_index() == 0 and step in self.steps():
            files.delete(self.directory / str(step))
            places.commit(self.directory.parent)
        _barrier("checkpoint unsealed")

    def _refresh(self) -> None:
        """See in the bucket what the first process has stored there."""
        if self._apart and jax.process_index() != 0:
            places.refresh(self.directory.parent)

    def _make_room(self, newest: int) -> None:
        losses = files.losses_by_step(self.directory)
        ours = {step: loss for step, loss in losses.items() if step <= newest}
        settings = self.config.checkpoint
        kept = files.kept_steps(ours, settings.keep_latest, settings.keep_best)
        kept |= self._kept
        for step in losses.keys() - kept:
            files.delete(self.directory / str(step))

    @contextlib.contextmanager
    def _one_line_errors(self, step: int) -> Iterator[None]:
        """A failed write as one OSError line. Orbax and TensorStore raise all of these for it."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            # The old one would raise what is left of this failure in the next save.
            self._checkpointer = _async_checkpointer(self._apart)
            raise SaveFailed(
                f"cannot save the checkpoint of step {step} in {self.directory}: {_cause(error)}"
            ) from error


def _async_checkpointer(apart: bool) -> Any:
    """apart: each process writes into a folder of its own, as if it were the only one."""
    import orbax.checkpoint as ocp

    several: dict[str, Any] = {}
    if apart:
        from gpt_jax.runs.apart import alone

        several = alone()
    # Trained floats hardly compress (8%), and trying takes three times as long as writing.
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, use_ocdbt=not apart, **several)
    # Made in the background, a directory is waited for by the number of the process's last save:
    # with saves from several threads (packs) it may be another's.
    options = ocp.AsyncOptions(
        timeout_secs=SAVE_TIMEOUT_SECONDS, create_directories_asynchronously=False
    )
    return ocp.AsyncCheckpointer(handler, async_options=options, **several)


def _refuse_full_disk(directory: Path, n_bytes: int) -> None:
    """Raise OSError before half a checkpoint is written to a disk that cannot hold it."""
    free = shutil.disk_usage(directory).free
    if free < n_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)} ({n_bytes / 2**20:,.1f} MiB needed, "
            f"{free / 2**20:,.1f} MiB free)",
        )


def _cause(error: Exception) -> str:
    """The operating system's message for an error, where its code is known; else the first line of
    the error's own message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore
    if code:
        return os.strerror(int(code[1]))
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _not_raised_anyway(record: logging.LogRecord) -> bool:
    """A log filter: of each error that it raises, Orbax also logs the traceback, over pages."""
    where = f"{record.pathname} {record.getMessage()}"
    return not (record.exc_info and "orbax" in where)


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
