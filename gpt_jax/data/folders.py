"""Files of a corpus in folders: finding them, and telling which are held out by name.

Names are relative to what was asked for and in a stable order. Must not import jax.
"""

import dataclasses
import glob
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from gpt_jax.data.files import Files, Found, expanded

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "heldout": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Words of a file's or folder's name that say which split it is."""
ABOUT = re.compile(r"(readme|license|licence|citation|changelog)\b.*|.*\.md", re.IGNORECASE)
"""Files about a corpus, which belong to no split."""
SHOWN = 3


def find_several(path: str, suffixes: Sequence[str], named_splits: bool) -> Found:
    """A glob's files, or a directory's with one of the suffixes.

    suffixes: of records, without that of a compression; none = any file, each a text.
    named_splits: whether files named train, validation and test are those splits.
    Raises ValueError when there is none, or one that cannot be read twice.
    """
    given = expanded(path)
    if given.is_dir():
        names, special = walk(given, follow_links=True)
        files = {name: given / name for name in names if _has_suffix(name, suffixes)}
        if not files:
            kinds = f" {' or '.join(suffixes)}" if suffixes else ""
            raise ValueError(f"data.path = {path}; the directory holds no{kinds} files")
    else:
        if given.exists():
            raise ValueError(
                f"data.path = {path} is {kind_of(given)}; a corpus is read more than once, from "
                "regular files: write it to one"
            )
        matches = [Path(p) for p in sorted(glob.glob(str(given), recursive=True))]
        matches = [p for p in matches if not p.is_dir()]
        special = [str(p) for p in matches if not p.is_file()]
        matches = [p for p in matches if p.is_file()]
        if not matches:
            raise ValueError(
                f"data.path = {path}; no such file or directory, and no file matches it"
            )
        base = os.path.commonpath([p.parent for p in matches])
        files = {p.relative_to(base).as_posix(): p for p in matches}
    found = _by_split(path, files, records=bool(suffixes)) if named_splits else Found(files)
    if special:
        note = f"data.path = {path}: {_some(special)} left out, being no regular files"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    return found


def walk(
    root: Path, leave_out: frozenset[str] = frozenset(), follow_links: bool = False
) -> tuple[list[str], list[str]]:
    """Names, relative to root, of all regular files that are not hidden, sorted; and of the rest.

    follow_links: links to directories outside of what was walked already are entered, once.
    Raises ValueError for a directory that cannot be listed and a link to nothing.
    """
    names: list[str] = []
    special: list[str] = []
    pending, seen = [root], set[str]()
    while pending:
        start, links = pending.pop(0), list[Path]()
        if os.path.realpath(start) in seen:
            continue
        for directory, children, files in os.walk(start, onerror=_unlisted):
            children[:] = [c for c in children if c not in leave_out and not c.startswith(".")]
            here = Path(directory)
            seen.add(os.path.realpath(here))
            links += [here / child for child in children if (here / child).is_symlink()]
            for file in files:
                if not file.startswith("."):
                    name = (here / file).relative_to(root).as_posix()
                    (names if _is_regular(here / file) else special).append(name)
        # Directories themselves come first: what a link adds has the names it has there.
        pending += sorted(links) if follow_links else []
    return sorted(names), sorted(special)


def _unlisted(error: OSError) -> None:
    raise ValueError(f"cannot list {error.filename}: {error.strerror}")


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        target = f"; it is a link to {os.readlink(path)}" if path.is_symlink() else ""
        raise ValueError(f"cannot read {path}: {error.strerror}{target}") from None


def kind_of(path: Path) -> str:
    """A special file's kind, for a message."""
    mode = path.stat().st_mode
    kinds = {
        stat.S_ISFIFO: "a FIFO",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((kind for is_one, kind in kinds.items() if is_one(mode)), "no regular file")


def _has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    from gpt_jax.storage.compressed import FORMATS

    for compression in FORMATS:
        name = name.removesuffix(compression)
    return not suffixes or name.endswith(tuple(suffixes))


# Splits


def split_named(name: str) -> str | None:
    """The split that a file's name says, or else its folder's; None: none, or more than one."""
    for part in reversed(PurePosixPath(name).parts):
        words = re.findall("[a-z]+", part.lower())
        said = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def _by_split(path: str, files: Files, records: bool) -> Found:
    """Files named train, validation and test, apart.

    Texts (not records) with others among them, such as the sources of a program, are no data set:
    a `test.py` there is text like any.
    """
    splits: dict[str | None, dict[str, Path]] = {
        None: {},
        "train": {},
        "validation": {},
        "test": {},
    }
    for name, file in files.items():
        splits[split_named(name)][name] = file
    held_out = splits["validation"] | splits["test"]
    if not held_out or not (splits["train"] or records):
        return Found(files)
    others = [name for name in splits[None] if not ABOUT.fullmatch(PurePosixPath(name).name)]
    if not splits["train"]:
        note = f"data.path = {path}: {_some(held_out)} trained on like the rest: no file is named "
        return Found(files, notes=(note + "train; give one path, or a glob, to leave others out",))
    if others and not records:
        note = f"data.path = {path}: {_some(held_out)} trained on like the rest, for others "
        return Found(files, notes=(f"{note}({_some(others, verb='')}) are named after no split",))
    unread = splits["test"] | splits[None]
    note = f"data.path = {path}: {_count(splits['train'])} named train trained on"
    if splits["validation"]:
        note += f", {_some(splits['validation'])} the validation split"
    if unread:
        note += f", {_some(unread)} not read"
    note += " (data.named_splits = false trains on all)"
    return Found(splits["train"], splits["validation"], unread, (note,))


def _some(names: Sequence[str] | Files, verb: str = "is are") -> str:
    """A few of the names, and how many more there are, with the verb's right form."""
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else ""
    word = verb.split()[min(1, len(listed) - 1)] if verb else ""
    return f"{', '.join(listed[:SHOWN])}{more} {word}".strip()


def _count(files: Files) -> str:
    return f"{len(files):,} files are" if len(files) > 1 else "one file is"
