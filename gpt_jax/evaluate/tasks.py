"""Evaluation tasks: items, prompts with demonstrations, and how choices are counted.

A task is one `Task(...)`: which files hold its records, and a function from a record to items. A
user's own go into a Python file whose TASKS is a list of them (`--task-file`):

    from gpt_jax.evaluate.tasks import Item, Task

    def read(record):
        yield Item(f"Q: {record['question']}\\nA:", (" yes", " no"), gold=record["label"])

    TASKS = [Task("mine", ("mine.jsonl",), read)]

Must not import jax.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpt_jax.config import python_file
from gpt_jax.data.records import Located
from gpt_jax.hints import did_you_mean
from gpt_jax.storage.checksum import seed_of
from gpt_jax.storage.compressed import FORMATS

Record = Mapping[str, Any]
Measure = Literal["raw", "per_character", "per_token", "per_byte", "unconditional"]
"""How a choice is chosen: by its log-probability (lm-evaluation-harness's acc); that divided by its
characters, the space before it left out (its acc_norm); divided by its tokens (GPT-3, section 2.4);
divided by its UTF-8 bytes; or minus its log-probability after `Task.answer_context` (GPT-3: ARC,
OpenBookQA, RACE)."""
Metric = Literal["exact_match", "squad", "bleu", "rouge", "matthews", "none"]
OwnMetric = Callable[[str, Sequence[str]], float | Mapping[str, float]]
"""A user's own score of a written text, given the answers that are right."""
Parser = Callable[[str, str], Iterable[Located]]
"""From a file's text and name to its records, each with its place."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One question. A choice's text begins with the space before it.

    With `contexts` each choice has its own context (partial scoring, Trinh and Le 2018): choice i
    is choices[i], or the only one, after contexts[i]. An item of a generation task has `answers`,
    any of which is right, and no choices.
    """

    context: str
    choices: tuple[str, ...] = ()
    gold: int = 0
    contexts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    group: str = dataclasses.field(default="", repr=False)
    """Part of the data set that the item belongs to, which is scored by itself besides."""

    def pairs(self) -> list[tuple[str, str]]:
        """(context, continuation) of each choice."""
        if not self.contexts:
            return [(self.context, choice) for choice in self.choices]
        return [(c, self.choices[i % len(self.choices)]) for i, c in enumerate(self.contexts)]

    def solved(self) -> str:
        """The item with its right answer, as a demonstration."""
        if self.choices:
            return "".join(self.pairs()[self.gold])
        return f"{self.context} {self.answers[0]}"


Read = Callable[[Record], Iterable[Item]]
PACKED = tuple(f".jsonl{suffix}" for suffix in FORMATS)
ENDINGS = (".jsonl", ".json", ".parquet", ".csv", ".tsv", *PACKED)
"""Endings under which any task's records are looked for beside the names of its entry."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set and how it is scored."""

    name: str
    files: tuple[str, ...]
    """Names under --data of the evaluation items; of several the first that is there is taken.
    After them come NAME.jsonl and NAME with the other endings of ENDINGS."""
    read: Read
    """Items of a record. Raises ValueError for a record that it cannot read."""
    demonstrations: tuple[str, ...] = ()
    """Likewise of the training items that few-shot prompts take; none: other evaluation items."""
    kind: Literal["choice", "cloze", "generate"] = "choice"
    """choose among choices; the only choice must be what greedy decoding says; write a text."""
    parsers: Mapping[str, Parser] = dataclasses.field(default_factory=dict)
    """File ending (.txt) -> the reader of files in this data set's own form; other files are read
    as records."""
    measure: Measure = "per_token"
    """Measure of a choice task's headline accuracy; every measure is reported."""
    answer_context: str = ""
    """Context of the unconditional probabilities; empty: they are not computed."""
    instruction: str = ""
    """Before all demonstrations; {group} in it is the item's group."""
    separator: str = "\n\n"
    """Between demonstrations."""
    tfds: tuple[str, str, str] | None = None
    """Name, evaluation split and training split in TensorFlow Datasets."""
    make: Callable[[int], list[Item]] | None = None
    """Generates the items from a seed, where there is no file."""
    metric: Metric | OwnMetric = "exact_match"
    """Score of a generation task; `squad` is exact match and F1 over words. A choice task may have
    `matthews` beside its accuracy. A function of yours: from a text and the item's answers to a
    number, or to several by name; reported as their means."""
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ("\n",)
    banned_words: tuple[str, ...] = ()
    """A cloze's second accuracy passes over these words (GPT-2's stop-word filter)."""
    source: str = ""
    """Data set and paper whose convention this is."""

    def __post_init__(self) -> None:
        """Raises ValueError for a kind, measure or metric that there is not, or that the kind does
        not have."""
        kinds = typing.get_args(typing.get_type_hints(Task)["kind"])
        for name, value, allowed in (
            ("kind", self.kind, kinds),
            ("measure", self.measure, typing.get_args(Measure)),
        ):
            if value not in allowed:
                raise ValueError(
                    f"task {self.name}: {name} = {value!r}; allowed: {', '.join(allowed)}"
                )
        metrics = typing.get_args(Metric)
        if not callable(self.metric) and self.metric not in metrics:
            raise ValueError(
                f"task {self.name}: metric = {self.metric!r}; allowed: {', '.join(metrics)}, or a "
                f"function of a text and the answers"
            )
        of_texts = callable(self.metric) or self.metric in ("squad", "bleu", "rouge")
        if self.kind != "generate" and of_texts:
            raise ValueError(
                f"task {self.name}: metric = {self.metric!r} scores written texts; kind = "
                f"{self.kind} writes none: set kind = generate"
            )

    def names(self) -> tuple[str, ...]:
        """Names of the files that may hold the evaluation items, in the order of preference."""
        return (*self.files, *(f"{self.name}{ending}" for ending in ENDINGS))


def prompts(
    task: Task, items: Sequence[Item], pool: Sequence[Item], shots: int, seed: int
) -> list[str]:
    """Prompt prefix of each item: instruction and demonstrations, drawn anew for each item.

    pool: where demonstrations are drawn from, without the item itself; of items with a group, those
    of the same one. The draw depends on the
    seed and on the item's own text alone, so an item's prompt does not change with --limit.
    Raises ValueError for fewer other items than shots.
    """
    found = []
    groups: dict[str, list[Item]] = {}
    for item in pool:
        groups.setdefault(item.group, []).append(item)
    for item in items:
        pool = groups.get(item.group, [])
        random = np.random.default_rng(seed_of(repr((seed, shots, item))))
        # One more than needed: the item itself may be drawn, and is left out.
        n_drawn = min(shots + 1, len(pool)) if shots else 0
        drawn = random.choice(len(pool), n_drawn, replace=False).tolist() if n_drawn else []
        others = [pool[i] for i in drawn if pool[i] != item][:shots]
        if len(others) < shots:
            raise ValueError(
                f"--shots {shots}, but task {task.name} has {len(pool)} items to draw from"
                f"{f' in group {item.group}' if item.group else ''}"
            )
        found.append(
            task.instruction.replace("{group}", item.group)
            + "".join(other.solved() + task.separator for other in others)
        )
    return found


def select(names: Sequence[str], catalog: Mapping[str, Task]) -> list[Task]:
    """Tasks by name. Raises ValueError for an unknown one, with the nearest."""
    for name in names:
        if name not in catalog:
            raise ValueError(
                f"unknown task '{name}'; known: {', '.join(catalog)}; add one by --task-file"
                f"{did_you_mean(name, catalog)}"
            )
    return [catalog[name] for name in dict.fromkeys(names)]


REGISTERED: dict[str, Task] = {}
"""Tasks that extensions registered, by name."""


def register(task: Task) -> None:
    """Make a task known by its name, beside those of the catalog or in the place of one; raises
    ValueError if another extension has registered the name."""
    if task.name in REGISTERED:
        raise ValueError(f"a task named {task.name} is registered already; give yours another name")
    REGISTERED[task.name] = task


def load_tasks(path: Path) -> dict[str, Task]:
    """The tasks that a user's file declares. Raises ValueError if it declares none."""
    module = python_file.execute(path, "task file")
    tasks = vars(module).get("TASKS")
    if not isinstance(tasks, list | tuple) or not all(isinstance(t, Task) for t in tasks):
        raise ValueError(f"--task-file {path}: it must set TASKS, a list of Task")
    return {task.name: task for task in tasks}
