"""Files of published tables: from a folder, or downloaded once by pooch and checked.

Must not import jax.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt_jax.published.runs.entry import File, Form, RunsEntry
from gpt_jax.runtime import cache_directory
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.checksum import checksum, file_checksum
from gpt_jax.storage.optional import require

DIGESTS = "digests.json"
"""SHA-256 of the files in a cache that no entry has a digest of, from their first download."""
EXTRA = "runs"
TIMEOUT = 60
"""Seconds without an answer after which a download fails."""


@dataclass(frozen=True)
class Found:
    """The files of one form of a table, checked."""

    form: Form
    paths: list[Path]


def default_cache() -> Path:
    """Directory of downloaded tables: the project's cache, `runs`."""
    return cache_directory() / "runs"


def find(entry: RunsEntry, folder: Path | None, cache: Path, say: Callable[[str], None]) -> Found:
    """The files of the first form that can be had: in the folder, if one is given, else by address.

    say: told what is trusted on first use. Raises ValueError where no form can be had, or a file
    has another digest than it must have.
    """
    if folder is not None:
        return _in_folder(entry, folder)
    form = next((form for form in entry.forms if all(file.url for file in form.files)), None)
    if form is None:
        names = " or ".join(", ".join(file.name for file in form.files) for form in entry.forms)
        raise ValueError(
            f"{entry.name} has no address that can be read as it is: get it from {entry.address}, "
            f"then --from DIR with {names} (gpt-jax runs list --verbose says how)"
        )
    place = cache / entry.name
    new: dict[str, str] = {}
    paths = []
    for file in form.files:
        paths.append(place / file.name)
        new |= _download(file, place)
    if new:
        say(_trusted(new, place / DIGESTS))
    return Found(form, paths)


def available(entry: RunsEntry, folder: Path | None, cache: Path) -> bool:
    """Whether a form's files are all there already, without a download."""
    places = [folder] if folder is not None else [cache / entry.name]
    return any(
        all((place / file.name).is_file() for file in form.files)
        for place in places
        for form in entry.forms
    )


def _in_folder(entry: RunsEntry, folder: Path) -> Found:
    if not folder.is_dir():
        raise ValueError(f"--from {folder}: no such folder")
    for form in entry.forms:
        paths = [folder / file.name for file in form.files]
        if all(path.is_file() for path in paths):
            for file, path in zip(form.files, paths, strict=True):
                if file.sha256 is not None:
                    _require_digest(file.sha256, file_checksum(path), str(path))
            return Found(form, paths)
    wanted = " or ".join(_few([file.name for file in form.files]) for form in entry.forms)
    raise ValueError(f"--from {folder}: {entry.name} needs {wanted} there")


def _few(names: list[str]) -> str:
    return (
        ", ".join(names) if len(names) < 4 else f"{names[0]} ... {names[-1]} ({len(names)} files)"
    )


def _download(file: File, folder: Path) -> dict[str, str]:
    """Have the file in the folder with the right digest; {name: digest} if it is trusted now."""
    path = folder / file.name
    known = file.sha256 or read_digests(folder).get(file.name)
    if path.is_file() and known is not None and file_checksum(path) == known:
        return {}
    _retrieve(file, folder, known)
    if known is not None:
        return {}
    new = {file.name: file_checksum(path)}
    write_json(folder / DIGESTS, {**read_digests(folder), **new})
    return new


def _trusted(new: dict[str, str], kept: Path) -> str:
    """The line about files that had no digest to be held to."""
    name, digest = next(iter(new.items()))
    if len(new) == 1:
        return f"{name}: trusted on first use, SHA-256 {digest} (kept in {kept})"
    together = checksum("".join(new.values()))
    return (
        f"{len(new)} files: trusted on first use, SHA-256 of their SHA-256s {together} "
        f"(each is kept in {kept})"
    )


def _retrieve(file: File, folder: Path, known: str | None) -> None:
    """Put the file into the folder, from the first address that has the right bytes."""
    failures = []
    for url in (file.url, *file.mirrors):
        assert url is not None
        try:
            part = _fetch(url, file, folder)
        except OSError as error:  # requests' errors are OSErrors too
            failures.append(f"cannot download {url}: {_short(error)}")
            continue
        try:
            if known is not None:
                _require_digest(known, file_checksum(part), url)
        except ValueError as error:
            failures.append(str(error))
        else:
            target = folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            return
        finally:
            part.unlink(missing_ok=True)
    raise ValueError(
        f"{'; '.join(failures)}; with a copy of your own: --from DIR, where {file.name} lies"
    )


def _fetch(url: str, file: File, folder: Path) -> Path:
    """The file under another name in the folder; raises OSError where there is no answer."""
    pooch = require("pooch", EXTRA)
    pooch.get_logger().setLevel("WARNING")
    temporary = f".{file.name.replace('/', '_')}.part"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / temporary).unlink(missing_ok=True)  # pooch would take an old one for the answer
    # Digests are compared by the caller, whose message names both.
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT)
    return Path(pooch.retrieve(url, None, temporary, path=folder, downloader=downloader))


def _short(error: OSError) -> str:
    """A library's message up to the address that it repeats."""
    text = str(error).partition(" for url")[0]
    if "ConnectionPool(" in text:
        return "no connection"
    return text if len(text) < 120 else f"{text[:120]}..."


def _require_digest(expected: str, seen: str, what: str) -> None:
    if seen != expected:
        raise ValueError(
            f"{what}: refused, SHA-256 is {seen} and not {expected}: other bytes than those that "
            f"this table is known by"
        )


def read_digests(folder: Path) -> dict[str, str]:
    """{file: digest of its first download} of a table's folder in the cache."""
    path = folder / DIGESTS
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text())
    except json.JSONDecodeError:
        raise ValueError(f"{path} is damaged; remove it to trust the files anew") from None
    return {str(name): str(digest) for name, digest in kept.items()}
