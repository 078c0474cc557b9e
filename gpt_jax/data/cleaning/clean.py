"""Clean a source of documents into JSON lines, with a report of what was removed and why.

The source is read in parts of about PART_BYTES. A part's files are put in place one by one and its
record last, so a killed run continues after the last recorded part and ends in the same bytes.
Documents of a part are judged in processes of their own; copies are found in order, by one process
that holds a digest, and for near copies a signature, of every document that was kept.
Must not import jax.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import gzip
import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt_jax.data.cleaning.duplicates import DIGEST_BYTES, Seen
from gpt_jax.data.cleaning.judge import Outcome, Steps, judge_all
from gpt_jax.data.documents import Document, Source
from gpt_jax.data.output import locked, write, write_json, writing
from gpt_jax.data.progress import report_bytes
from gpt_jax.storage.checksum import json_checksum
from gpt_jax.storage.json_files import read_object

PART_BYTES = 64 << 20
"""Text that is read between two records: what a kill loses at most."""
CHUNK_BYTES = 1 << 20
"""Text that a process judges at a time."""
CLAIM, REPORT = "clean.json", "report.json"
DOCUMENTS, REMOVED, INDEX = "documents", "removed", "index"
EXAMPLES = 3
EXCERPT = 80
"""Characters of an example that the report shows."""


@dataclasses.dataclass
class Counts:
    """Counts of documents so far, by what was done to them."""

    n_documents: int = 0
    n_bytes: int = 0
    n_kept: int = 0
    n_kept_bytes: int = 0
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Reason -> documents removed for it."""
    changes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Step -> documents kept whose text it changed."""
    examples: dict[str, list[list[str]]] = dataclasses.field(default_factory=dict)
    """Reason -> [name, beginning of the text] of the first documents removed for it."""

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Counts":
        """The counts that JSON gave back."""
        tallies = {key: collections.Counter(found[key]) for key in ("reasons", "changes")}
        return cls(**(found | tallies))

    def add(self, outcome: Outcome) -> None:
        self.n_documents += 1
        self.n_bytes += outcome.n_bytes
        if not outcome.reason:
            self.n_kept += 1
            self.n_kept_bytes += len(outcome.text.encode())
            self.changes.update(outcome.changes)
            return
        self.reasons[outcome.reason] += 1
        shown = self.examples.setdefault(outcome.reason, [])
        if len(shown) < EXAMPLES:
            shown.append([outcome.name, " ".join(outcome.text[: 4 * EXCERPT].split())[:EXCERPT]])


def clean(
    source: Source,
    steps: Steps,
    directory: Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    part_bytes: int = PART_BYTES,
) -> Counts:
    """Write the documents that are kept to `directory`/documents, and a report beside them.

    workers: processes that judge documents; None = one a core, 0 = this one. Does not change the
    result. part_bytes: text between two records.

    Raises ValueError where the directory holds something else, or was begun with other steps or
    another source, where the source cannot be read, or a library is missing.
    """
    steps.check()
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        _claim(directory, source, steps)
        if (directory / REPORT).is_file():
            shutil.rmtree(directory / INDEX, ignore_errors=True)
            return Counts.of(read_object(directory / REPORT, "counts")["counts"])
        seen = Seen(steps.near_threshold if "near" in steps.duplicates else None)
        counts, n_parts = _continue(directory, seen)
        with (
            _judges(steps, workers) as judged,
            report_bytes("cleaning", None, progress) as advance,
        ):
            for split, part in _parts_of(source, counts.n_documents, part_bytes):
                outcomes = [_checked(outcome, seen) for outcome in judged(part)]
                for outcome in outcomes:
                    counts.add(outcome)
                _write_part(directory, split, n_parts, outcomes, counts)
                n_parts += 1
                advance(sum(outcome.n_bytes for outcome in outcomes))
        facts = {"source": source.description, "steps": dataclasses.asdict(steps)}
        write_json(directory / REPORT, facts | {"counts": vars(counts)})
        shutil.rmtree(directory / INDEX, ignore_errors=True)
    return counts


def _parts_of(source: Source, n_done: int, n_bytes: int) -> Iterator[tuple[str, list[Document]]]:
    """(split, documents) in the order in which a build reads them, without the first `n_done`.

    split: how their files' names begin, by which a build knows what is held out.
    """
    if source.read_validation is None:
        readers = {"part": source.read}
    else:
        readers = {"validation": source.read_validation, "train": source.read}
    for split, read in readers.items():
        documents = read()
        while n_done and next(documents, None) is not None:
            n_done -= 1
        for part in _parts(documents, n_bytes):
            yield split, part


def _checked(outcome: Outcome, seen: Seen) -> Outcome:
    """The outcome, removed where it is a copy of one that was kept."""
    if outcome.reason or not outcome.digest:
        return outcome
    reason = seen.copies(outcome.digest, outcome.signature)
    if reason:
        return outcome._replace(reason=reason, changes=())
    seen.add(outcome.digest, outcome.signature)
    return outcome


def _parts(documents: Iterator[Document], n_bytes: int) -> Iterator[list[Document]]:
    """Documents in a row of together about so many bytes."""
    part: list[Document] = []
    size = 0
    for document in documents:
        part.append(document)
        size += len(document.text)
        if size >= n_bytes:
            yield part
            part, size = [], 0
    if part:
        yield part


Judges = Callable[[list[Document]], Iterator[Outcome]]


@contextlib.contextmanager
def _judges(steps: Steps, workers: int | None) -> Iterator[Judges]:
    """A function that judges documents, in order, in processes where there are several."""
    n = len(os.sched_getaffinity(0)) if workers is None else workers
    judge = functools.partial(judge_all, steps)
    if n < 2:
        yield lambda part: iter(judge(part))
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(n, context) as pool:

        def judged(part: list[Document]) -> Iterator[Outcome]:
            for outcomes in pool.map(judge, list(_parts(iter(part), CHUNK_BYTES))):
                yield from outcomes

        yield judged


def _claim(directory: Path, source: Source, steps: Steps) -> None:
    """Note what is cleaned, and how. Raises ValueError where the directory is another's."""
    identity = {"source": source.identity, "steps": dataclasses.asdict(steps)}
    claim = {"identity": json_checksum(identity), "description": source.description}
    path = directory / CLAIM
    if path.is_file():
        begun = read_object(path, "identity", "description")
        if begun["identity"] != claim["identity"]:
            raise ValueError(
                f"{directory} holds another cleaning, of {begun['description']}, or with other "
                "steps; delete it or choose another --output"
            )
        return
    if any(directory.iterdir()):
        raise ValueError(f"{directory} holds other files; choose another --output")
    write_json(path, claim)


def _continue(directory: Path, seen: Seen) -> tuple[Counts, int]:
    """Counts of earlier parts, and their number; the documents they kept are added to `seen`."""
    counts, n = Counts(), 0
    while (record := directory / INDEX / f"part-{n:05}.json").is_file():
        counts = Counts.of(read_object(record, "counts")["counts"])
        with np.load(record.with_suffix(".npz"), allow_pickle=False) as kept:
            signatures = kept["signatures"]
            for i, row in enumerate(kept["digests"]):
                seen.add(row.tobytes(), signatures[i] if len(signatures) else None)
        n += 1
    return counts, n


def _write_part(
    directory: Path, split: str, number: int, outcomes: Sequence[Outcome], counts: Counts
) -> None:
    """Put the files of a part in place, its record last."""
    kept = [outcome for outcome in outcomes if not outcome.reason]
    removed = [outcome for outcome in outcomes if outcome.reason]
    name = f"{split}-{number:05}"
    for folder in (DOCUMENTS, REMOVED, INDEX):
        with writing(directory / folder):
            (directory / folder).mkdir(exist_ok=True)
    lines = ({"name": outcome.name, "text": outcome.text} for outcome in kept)
    _write_lines(directory / DOCUMENTS / f"{name}.jsonl.gz", lines)
    reasons = ({"name": outcome.name, "reason": outcome.reason} for outcome in removed)
    _write_lines(directory / REMOVED / f"{name}.jsonl.gz", reasons)
    digests = np.frombuffer(b"".join(outcome.digest for outcome in kept), np.uint8)
    signatures = [outcome.signature for outcome in kept if outcome.signature is not None]
    index = io.BytesIO()
    digests = digests.reshape(-1, DIGEST_BYTES)
    np.savez(index, digests=digests, signatures=np.array(signatures, np.uint32))
    record = directory / INDEX / f"part-{number:05}.json"
    write(record.with_suffix(".npz"), [index.getbuffer()])
    write_json(record, {"counts": vars(counts)})


def _write_lines(path: Path, records: Iterator[dict[str, str]]) -> None:
    """JSON lines, compressed, the same bytes at any time."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write(path, [gzip.compress(text.encode(), compresslevel=6, mtime=0)])
