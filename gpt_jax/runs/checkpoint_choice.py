"""Which checkpoint of a run is read: `--checkpoint`, the latest sound one, the best.

Must not import jax.
"""

import argparse
from pathlib import Path

from gpt_jax.output import say
from gpt_jax.runs.checkpoint_files import (
    Corrupt,
    Manifest,
    Which,
    losses_by_step,
    ranked,
    read_manifest,
    saved_steps,
    size_and_crc,
)
from gpt_jax.storage import places


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


def best_step(directory: str | Path) -> int | None:
    """The step with the lowest finite validation loss; None if no checkpoint has one."""
    found = ranked(losses_by_step(Path(directory)))
    return found[0] if found else None


def verify(path: Path) -> Manifest:
    """The manifest of the checkpoint at `path`, after reading each file and comparing.

    Raises Corrupt naming the first file that is missing, truncated or altered.
    """
    manifest = read_manifest(path)
    places.complete(path)
    for name, (size, checksum) in manifest.files.items():
        try:
            found_size, found_checksum = size_and_crc(path / name)
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
