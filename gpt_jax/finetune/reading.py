"""The records of a task: read from its files, split, and what there is to say of them.

Must not import jax.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpt_jax.config import Config, TaskConfig
from gpt_jax.data import records
from gpt_jax.finetune.inputs import Record, place, task_label
from gpt_jax.storage import tables
from gpt_jax.storage.places import on_disk

HELD_OUT = 10
"""Without a validation file, every so-maniest training example is for validation."""
CLASSES_SHOWN = 20
"""Classes that are listed with their counts; of more, the rarest and the most frequent ones."""


def read_records(path: str, notes: list[str] | None = None) -> list[Record]:
    """The records of a file: .jsonl, .csv, .tsv or .json, plain, .gz or .bz2.

    notes: what was guessed or left out is added to them. Raises ValueError naming file and line,
    also if there is no record.
    """
    file = on_disk(path)
    if tables.is_table(file):
        table = tables.read(file)
        found: list[Record] = list(table.rows)
        if notes is not None:
            notes += table.notes
    elif file.is_file():
        found = list(records.read(file))
    else:
        raise ValueError(f"no file of examples {path}")
    if not found:
        raise ValueError(f"{path} holds no examples")
    return found


def split_records(
    config: Config, notes: list[str] | None = None
) -> tuple[list[Record], list[Record]]:
    """(training, validation) records of a task; notes: as for `read_records`."""
    training = read_records(config.task.train, notes)
    if config.task.validation:
        return training, read_records(config.task.validation, notes)
    if len(training) < 2:
        raise ValueError(f"{config.task.train} has one example; set task.validation")
    if len(training) < HELD_OUT:
        return training[:-1], training[-1:]
    kept = [record for i, record in enumerate(training) if (i + 1) % HELD_OUT]
    return kept, training[HELD_OUT - 1 :: HELD_OUT]


def class_names(training: Sequence[Record], config: Config) -> tuple[str, ...]:
    """The labels that occur, sorted; of tags, O first."""
    found = {name for _, name in _labels(training, config.task, config.task.train)}
    return tuple(sorted(found, key=lambda name: (name != "O", name)))


def _labels(found: Sequence[Record], task: TaskConfig, path: str) -> list[tuple[str, str]]:
    """(place, label) of every example, or of every word. Raises ValueError where one is absent."""
    labels = []
    for i, record in enumerate(found):
        where = place(record, path, i)
        try:
            value = task_label(record, task)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        labels += [(where, str(x)) for x in (value if task.entry.labels == "classes" else [value])]
    return labels


def said_of_examples(
    training: Sequence[Record], validation: Sequence[Record], config: Config
) -> str:
    """How many examples were read."""
    task = config.task
    source = f"of {task.validation}" if task.validation else "held out of them"
    return (
        f"{task.train}: {len(training):,} training examples, {len(validation):,} for validation "
        f"{source}"
    )


def said_of_classes(training: Sequence[Record], config: Config) -> list[str]:
    """How many examples (or words) each class has, and which names may be meant for one class."""
    task = config.task
    if not task.labels:
        return []
    labels = _labels(training, task, task.train)
    counts = Counter(name for _, name in labels)
    ordered = sorted(task.labels, key=lambda name: (-counts[name], name))
    listed = [f"{name!r} {counts[name]:,}" for name in ordered]
    if len(listed) > CLASSES_SHOWN:
        half = CLASSES_SHOWN // 2
        listed = [*listed[:half], f"({len(listed) - 2 * half} more)", *listed[-half:]]
    what = "words" if task.entry.labels == "classes" else "training examples"
    said = [f"{task.train}: classes of {len(labels):,} {what}: {', '.join(listed)}"]
    first: dict[str, str] = {}
    for where, name in labels:
        first.setdefault(name, where)
    for alike in _alike(counts):
        shown = ", ".join(f"{name!r} ({counts[name]:,}, {first[name]})" for name in alike)
        said.append(f"warning: are these one class? {shown}")
    return said


def _alike(names: Counter[str]) -> list[list[str]]:
    """Groups of names that differ in case, white space or the form of a number alone; the most
    frequent of a group first."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        groups.setdefault(_essence(name), []).append(name)
    return [sorted(g, key=lambda x: -names[x]) for g in groups.values() if len(g) > 1]


def _essence(name: str) -> Any:
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(c for c in text if not c.isspace() and c not in "_").strip(".,;:!?\"'")
    try:
        return float(text)
    except ValueError:
        return text.replace("-", "") or name
