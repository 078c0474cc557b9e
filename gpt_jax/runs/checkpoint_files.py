"""Checkpoint directories: finding, sealing, verifying and deleting checkpoints.

    DIRECTORY/300/state/         the arrays, as `gpt_jax.runs.checkpoint` has Orbax write them
    DIRECTORY/300/manifest.json  step, validation loss, config; size and checksum of each file
    DIRECTORY/300.tmp/           unfinished: a save in progress, or what a killed run left

A directory gets its final name after its manifest is written, so a kill at any moment leaves
complete checkpoints only. What is damaged later is found by reading. Must not import jax.
"""

import dataclasses
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from gpt_jax.errors import DISK_ERRORS, WriteFailed
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.json_files import Damaged

Which: TypeAlias = Literal["auto", "latest", "best"] | int
"""The latest checkpoint, that with the lowest validation loss, or that of a step; auto: the best
where checkpoint.keep_best keeps one, else the latest."""

CHUNK_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Contents of a checkpoint's manifest.json."""

    step: int
    validation_loss: float | None
    config: dict[str, Any]
    arrays: dict[str, list[Any]]
    """{name: [shape, dtype]}"""
    files: dict[str, list[int]]
    """{path under the checkpoint: [bytes, CRC-32]}"""
    sealed: dict[str, str | None] = dataclasses.field(default_factory=dict)
    """Digests of what lies outside the checkpoint and is used with it: the run's tokenizer, and the
    weights of its base and teacher; none in checkpoints of earlier versions."""


class Corrupt(Damaged):
    """A checkpoint that cannot be trusted; the message names the file and what is wrong."""


def kept_steps(
    losses: Mapping[int, float | None], keep_latest: int, keep_best: int
) -> frozenset[int]:
    """Which of the saved steps stay, given their validation losses: the newest and the best.

    Steps without a finite loss are never among the best; of equal losses the earlier is better.
    """
    latest = sorted(losses)[-keep_latest:]
    return frozenset(latest) | frozenset(ranked(losses)[:keep_best])


def saved_steps(directory: str | Path) -> list[int]:
    """Steps with a finished checkpoint in `directory`, ascending; none if it does not exist."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def losses_by_step(directory: Path) -> dict[int, float | None]:
    """Validation loss of each finished checkpoint; None where it has none or is corrupt."""
    losses: dict[int, float | None] = {}
    for step in saved_steps(directory):
        try:
            losses[step] = read_manifest(directory / str(step)).validation_loss
        except Corrupt:
            losses[step] = None
    return losses


def prepare(directory: Path) -> None:
    """Make the directory, try to write in it, and clear what an unfinished save left there.

    Raises ValueError where this user may not write, WriteFailed where the disk is full or fails.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        for unfinished in directory.glob("*.tmp"):
            shutil.rmtree(unfinished)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise WriteFailed(directory, error) from error
        raise ValueError(
            f"cannot write checkpoints to {directory}: {error.strerror}; choose another --workdir"
        ) from error


def commit(
    unfinished: Path, manifest: Manifest, elsewhere: Mapping[str, list[int]] | None = None
) -> None:
    """Seal a completely written DIRECTORY/STEP.tmp and give it its final name, DIRECTORY/STEP.

    `manifest.files` is filled in here, with what other processes have stored `elsewhere`. A
    checkpoint that had the name is replaced.
    """
    checksums = {name: size_and_crc(path) for name, path in files_in(unfinished)}
    checksums |= elsewhere or {}
    write_manifest(unfinished, dataclasses.replace(manifest, files=checksums))
    final = unfinished.with_name(str(manifest.step))
    if final.exists():
        delete(final)
    os.replace(unfinished, final)


def delete(path: Path) -> None:
    """Delete a finished checkpoint; a kill on the way leaves no half of one under its name."""
    doomed = path.with_name(f"{path.name}.deleted.tmp")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest of the checkpoint at `path`, whole or not at all."""
    plain = json.loads(json.dumps(dataclasses.asdict(manifest)))
    write_json(path / "manifest.json", {"crc32": _seal(plain), "manifest": plain})


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint at `path`. Raises Corrupt if it is not as it was written."""
    try:
        sealed = json.loads((path / "manifest.json").read_bytes())
        if sealed["crc32"] != _seal(sealed["manifest"]):
            raise Corrupt(f"{path} is corrupt: manifest.json was altered")
        return Manifest(**sealed["manifest"])
    except Corrupt:
        raise
    except OSError as error:
        raise Corrupt(f"{path} is corrupt: manifest.json: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(f"{path} is corrupt: manifest.json cannot be read ({error})") from None


def ranked(losses: Mapping[int, float | None]) -> list[int]:
    """Steps with a finite validation loss, best first."""
    finite = {step: x for step, x in losses.items() if x is not None and math.isfinite(x)}
    return sorted(finite, key=lambda step: (finite[step], step))


def files_in(path: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of the files beneath a folder, sorted."""
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield file.relative_to(path).as_posix(), file


def size_and_crc(file: Path) -> list[int]:
    """[size in bytes, CRC-32]"""
    size = checksum = 0
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return [size, checksum]


def _seal(manifest: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by path, in the order of the tree. Nodes without leaves need not be saved."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
