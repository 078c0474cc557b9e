"""metrics.jsonl: its records read one by one, and what they come to, in 16 bytes a step.

A line per step and one per validation, in the order of steps. Nothing here holds all records: a run
of 600,000 steps has 400 MB of them. Must not import jax.
"""

import array
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt_jax.storage.atomic import replacing
from gpt_jax.storage.json_files import Damaged

Record = dict[str, Any]

OF_A_STEP = "step_seconds"
"""The field that tells the record of a step from that of a validation."""
_STEP = re.compile(rb'\{"step": (\d+),')


class History:
    """A running summary of a run's records."""

    def __init__(self) -> None:
        self.validations: list[Record] = []
        self.tokens, self.losses = array.array("d"), array.array("d")
        """The curve of the training loss, where it is finite."""
        self.train_loss: Any = None
        """Loss of the last step; text where it is not finite."""
        self.training_seconds = 0.0
        self.flops: float | None = None
        """Up to the last step."""
        self.n_left_out = self.left_out_in_a_row = 0
        """Steps that went wrong in all, and since the last that did not."""

    def add(self, record: Record) -> None:
        """Take in a record."""
        if "validation_loss" in record:
            self.validations.append(record)
        if isinstance(record.get("loss"), float):
            self.tokens.append(record["tokens"])
            self.losses.append(record["loss"])
        if OF_A_STEP not in record:
            return
        self.train_loss = record["loss"]
        self.training_seconds += record[OF_A_STEP]
        self.flops = record.get("flops", self.flops)
        bad = bool(record.get("bad"))
        self.n_left_out += bad
        self.left_out_in_a_row = self.left_out_in_a_row + 1 if bad else 0


def lines_of(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(number, line without its end, whether it has an end) of a file's lines that hold anything.

    Nothing without a file. A line without an end is one that is being written, or was cut short.
    """
    if path.exists():
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip(b"\n"), line.endswith(b"\n")


def iterate_records(path: Path) -> Iterator[Record]:
    """The records of a jsonl file; a last line cut short by a kill is left out.

    Raises Damaged for another line that is no JSON object, by its number.
    """
    damaged = None
    whole = True
    for number, line, ended in lines_of(path):
        if damaged is not None:
            break
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # also of bytes that are no UTF-8
            record = None
        if isinstance(record, dict):
            yield record
        else:
            damaged, whole = number, ended
    else:
        if damaged is None or not whole:
            return
    raise Damaged(f"{path}, line {damaged} is not JSON; the file is damaged")


def read_records(path: Path) -> list[Record]:
    """All records of a file that is not large, as `iterate_records` reads them."""
    return list(iterate_records(path))


def iterate_metrics(path: Path, last_step: int | None = None) -> Iterator[Record]:
    """The records of a metrics.jsonl, up to those of a step.

    Raises Damaged for a damaged line, and for a record without a step or tokens.
    """
    for number, record in enumerate(iterate_records(path), 1):
        for name in ("step", "tokens"):
            if not isinstance(record.get(name), int):
                raise Damaged(f"{path}: record {number} has no {name}; the file is damaged")
        step = record["step"]
        if last_step is not None and step > last_step:
            return
        yield record


def read_history(path: Path, last_step: int | None = None) -> History:
    """The summary of the records up to a step."""
    history = History()
    for record in iterate_metrics(path, last_step):
        history.add(record)
    return history


def steps_recorded(path: Path) -> int:
    """The number of steps from the first on that are all there, each once and in order."""
    n = 0
    mark = json.dumps(OF_A_STEP).encode()
    for _, line, _ in lines_of(path):
        if mark not in line:
            continue
        found = _STEP.match(line)
        if found is None or int(found[1]) != n + 1 or not line.endswith(b"}"):
            break
        n += 1
    return n


def tokens_after(path: Path, step: int) -> int | None:
    """Tokens trained by the steps up to this one, as its record says; None if it has none."""
    for _, line, _ in lines_of(path):
        found = _STEP.match(line)
        if found is not None and int(found[1]) == step:
            return json.loads(line)["tokens"]
    return None


def steps_after_tokens(path: Path, tokens: Iterable[float], last_step: int) -> dict[float, int]:
    """{tokens: the first step after which at least so many were trained}, as the records up to
    `last_step` say; without those that were not reached."""
    waiting, found = sorted(tokens), dict[float, int]()
    if not waiting:
        return found
    for record in iterate_metrics(path, last_step):
        while len(found) < len(waiting) and record["tokens"] >= waiting[len(found)]:
            found[waiting[len(found)]] = record["step"]
    return found


def keep_until(path: Path, last_step: int) -> None:
    """Cut the file after the last record of a step: what comes then is computed again."""
    if not path.exists():
        return
    end, whole = 0, True
    with path.open("rb+") as file:
        for line in file:
            found = _STEP.match(line) if line.endswith(b"}\n") else None
            step = int(found[1]) if found else _step_of(line)
            if step is None or step > last_step:
                break
            end, whole = end + len(line), line.endswith(b"\n")
        file.truncate(end)
        file.seek(end)
        if not whole:
            file.write(b"\n")
        file.flush()
        os.fsync(file.fileno())


def copy_until(source: Path, target: Path, last_step: int) -> None:
    """Another run's records up to a step, byte for byte; there at once or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary, temporary.open("wb") as file:
        for _, line, _ in lines_of(source):
            step = _step_of(line)
            if step is None or step > last_step:
                break
            file.write(line + b"\n")


def _step_of(line: bytes) -> int | None:
    """The step number of a line; None for a line that is cut short or is no record."""
    try:
        step = json.loads(line)["step"]
        return step if isinstance(step, int) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
