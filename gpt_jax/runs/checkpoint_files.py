"""Checkpoint directories: finding, sealing, verifying and deleting checkpoints.

    DIRECTORY/300/state/         the arrays, as `gpt_jax.runs.checkpoint` has Orbax write them
    DIRECTORY/300/manifest.json  step, validation loss, config; size and checksum of each file
    DIRECTORY/300.tmp/           unfinished: a save in progress, or what a killed run left

A directory gets its final name after its manifest is written, so a kill at any moment leaves
complete checkpoints only. What is damaged later is found by reading. Must not import jax.
"""

import argparse
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

from gpt_jax.failures import DISK_ERRORS, WriteFailed
from gpt_jax.output import say
from gpt_jax.storage import places
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.json_files import Damaged

Which: TypeAlias = Literal["auto", "latest", "best"] | int
"""The latest checkpoint, that with the lowest validation loss, or that of a step; auto: the best
where checkpoint.keep_best keeps one, else the latest."""

CHUNK_BYTES = 1 << 22


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint`, of every command that reads a run."""
    parser.add_argument(
        "--checkpoint",
        default="auto",
        metavar="auto|latest|best|STEP",
        help="auto, the default: the best where one is kept (checkpoint.keep_best), else the "
        "latest; which one it is, is printed",
    )


def parse_which(text: str) -> Which:
    """Parse the value of `--checkpoint`: auto, latest, best, or a step. Raises ValueError."""
    if text == "auto":
        return "auto"
    if text == "latest":
        return "latest"
    if text == "best":
        return "best"
    if text.isdecimal():
        return int(text)
    raise ValueError(f"--checkpoint {text}; allowed: auto, latest, best, or the number of a step")


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
    return frozenset(latest) | frozenset(_ranked(losses)[:keep_best])


def saved_steps(directory: str | Path) -> list[int]:
    """Steps with a finished checkpoint in `directory`, ascending; none if it does not exist."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def best_step(directory: str | Path) -> int | None:
    """The step with the lowest finite validation loss; None if no checkpoint has one."""
    ranked = _ranked(losses_by_step(Path(directory)))
    return ranked[0] if ranked else None


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


def commit(unfinished: Path, manifest: Manifest) -> None:
    """Seal a completely written DIRECTORY/STEP.tmp and give it its final name, DIRECTORY/STEP.

    `manifest.files` is filled in here. A checkpoint that had the name is replaced.
    """
    checksums = {name: _checksum(path) for name, path in _files(unfinished)}
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


def verify(path: Path) -> Manifest:
    """The manifest of the checkpoint at `path`, after reading each file and comparing.

    Raises Corrupt naming the first file that is missing, truncated or altered.
    """
    manifest = read_manifest(path)
    places.complete(path)
    for name, (size, checksum) in manifest.files.items():
        try:
            found_size, found_checksum = _checksum(path / name)
        except OSError as error:
            raise Corrupt(f"{path} is corrupt: {name}: {error.strerror}") from None
        if found_size != size:
            raise Corrupt(f"{path} is corrupt: {name} has {found_size:,} of {size:,} bytes")
        if found_checksum != checksum:
            raise Corrupt(f"{path} is corrupt: {name} was altered")
    return manifest


def choose(directory: Path, which: Which) -> tuple[Path, Manifest]:
    """`find_sound`, and a line on stderr that says which it is, unless a step was asked for."""
    path, manifest = find_sound(directory, which)
    if not isinstance(which, int):
        say(described(directory, manifest.step, which))
    return path, manifest


def described(directory: Path, step: int, which: Which = "auto") -> str:
    """A line that names a run's checkpoint, and says whether it is the best or the latest."""
    wants_best = which == "best" or (which == "auto" and _keeps_best(directory))
    rank = "best" if wants_best and step == best_step(directory) else "latest"
    n = len(saved_steps(directory))
    return f"checkpoint {step} of {directory.parent}: the {rank}{f' of {n} kept' if n > 1 else ''}"


def default_step(directory: Path) -> int:
    """The step of the checkpoint that `auto` means, which is not verified. Raises ValueError where
    there is none."""
    steps = saved_steps(directory)
    if not steps:
        raise ValueError(f"the run {directory.parent} has no checkpoint yet")
    best = best_step(directory) if _keeps_best(directory) else None
    return steps[-1] if best is None else best


def _keeps_best(directory: Path) -> bool:
    """Whether the run keeps its best checkpoints, and has one."""
    for step in reversed(saved_steps(directory)):
        try:
            settings = read_manifest(directory / str(step)).config.get("checkpoint", {})
        except Corrupt:
            continue
        return bool(settings.get("keep_best", 0)) and best_step(directory) is not None
    return False


def find_sound(directory: Path, which: Which) -> tuple[Path, Manifest]:
    """The verified checkpoint that is asked for; for the latest, the newest that is sound, which
    is also what auto takes where the best is damaged.

    Raises ValueError (Corrupt, if it is that) saying what there is.
    """
    steps = saved_steps(directory)
    if not steps:
        raise ValueError(f"no checkpoint in {directory}")
    if which == "auto" and _keeps_best(directory):
        try:
            return find_sound(directory, "best")
        except Corrupt as error:
            say(f"warning: {error}; taking the latest")
    if which in ("auto", "latest"):
        for step in reversed(steps):
            try:
                return directory / str(step), verify(directory / str(step))
            except Corrupt as error:
                say(f"warning: {error}; trying the one before")
        raise Corrupt(f"all checkpoints in {directory} are corrupt: steps {_listed(steps)}")
    chosen = which if isinstance(which, int) else best_step(directory)
    if chosen is None:
        raise ValueError(f"no checkpoint in {directory} has a validation loss; use 'latest'")
    if chosen not in steps:
        raise ValueError(f"no checkpoint of step {chosen} in {directory}; saved: {_listed(steps)}")
    return directory / str(chosen), verify(directory / str(chosen))


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _ranked(losses: Mapping[int, float | None]) -> list[int]:
    """Steps with a finite validation loss, best first."""
    finite = {step: x for step, x in losses.items() if x is not None and math.isfinite(x)}
    return sorted(finite, key=lambda step: (finite[step], step))


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield file.relative_to(path).as_posix(), file


def _checksum(file: Path) -> list[int]:
    """[size in bytes, CRC-32]"""
    size = checksum = 0
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return [size, checksum]


def _seal(manifest: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
