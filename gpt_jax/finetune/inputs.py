"""An example of a task as what the model reads: GPT-1's input transformations (its figure 1).

A row is the K sequences of an example (the options of a choice, the two orders of a pair), each of
T tokens, side by side. Three ids beyond the vocabulary are the start, delimiter and extract
tokens; the head reads at the extract token, or at the last token of every word (tag).
Must not import jax.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt_jax.config import ModelConfig, TaskConfig
from gpt_jax.data.streaming import begin_tokens
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.templates import (
    Part,
    Template,
    encode_part,
    given_turns,
    load_template,
    render_prompt,
)
from gpt_jax.storage import tables

N_SPECIAL = 3
"""Start, delimiter and extract."""

Record = dict[str, Any]


class Encoded(NamedTuple):
    """One sequence of a row, without padding."""

    tokens: list[int]
    learned: list[float]
    """For each token, the weight of the language model's loss of it; the first has none."""
    read: list[int]
    """Positions at which a label is read."""
    labels: list[float]
    """The label at each of them: a class, a value, or 1 for the right option."""
    n_cut: int = 0
    """Tokens of its texts that found no room."""
    n_lost: int = 0
    """Targets among them: tokens of a response, or words to be tagged."""


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Records to sequences, for one task."""

    task: TaskConfig
    tokenizer: Tokenizer
    first_special: int
    """The id of the start token: the first that is no token of the model's."""
    room: int
    """Tokens of a sequence, at most."""
    n_prefix: int = 0
    """Positions in front of every sequence that the model fills itself (a prompt, an image)."""
    template: Template | None = None
    labelled: bool = True
    """Whether a record must have a label; False: labels are not read (examples to predict)."""

    @property
    def start(self) -> int:
        return self.first_special

    @property
    def delimiter(self) -> int:
        return self.first_special + 1

    @property
    def extract(self) -> int:
        return self.first_special + 2

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).tolist()

    def text(self, record: Record, field: str) -> list[int]:
        """The tokens of a field. Raises ValueError where it holds no text."""
        return self.ids(tables.as_text(record[field], f"its field {field!r}"))

    def __call__(self, record: Record) -> list[Encoded]:
        """The sequences of a record. Raises ValueError for one that lacks a field or a label."""
        missing = [f for f in self.task.record_fields if f not in record]
        if missing and not (self.task.generates and "messages" in record):
            raise ValueError(
                f"it has no field {missing[0]!r}, but {', '.join(record)}; name the fields with "
                f"task.fields"
            )
        sequences: list[Encoded] = self.task.entry.encode(self, record)
        return sequences

    def has_targets(self, sequences: Sequence[Encoded]) -> bool:
        """Whether there is a token to learn in each, or a position at which a label is read."""
        if self.template is not None:
            return all(any(sequence.learned[1:]) for sequence in sequences)
        return all(sequence.read for sequence in sequences)

    def label(self, record: Record) -> Any:
        """The record's label; None for examples to predict. Raises ValueError where it is absent,
        null or empty."""
        return task_label(record, self.task) if self.labelled else None

    def prompt(self, record: Record) -> np.ndarray:
        """The tokens after which a response is to come: of the prompt, or of the turns so far."""
        return np.asarray(self.spoken_prompt(record).tokens, np.int32)

    def spoken_prompt(self, record: Record) -> Encoded:
        """The prompt, or the turns so far, as a sequence."""
        assert self.template is not None
        turns = given_turns(record, self.task.record_fields[0])
        return spoken(self, render_prompt(self.template, turns))

    def class_id(self, label: Any) -> int:
        """Raises ValueError for a label that is none of the classes."""
        names = self.task.labels
        if str(label) not in names:
            raise ValueError(f"its label {label!r} is none of {', '.join(names)}")
        return names.index(str(label))

    def sequence(
        self, parts: Sequence[list[int]], label: float | None, learned: bool = True
    ) -> Encoded:
        """[start] part [delimiter] part [extract], cut to the room there is."""
        whole = sum(map(len, parts))
        parts = fit(parts, self.room - self.n_prefix - len(parts) - 1)
        n_cut = whole - sum(map(len, parts))
        tokens = [0] * self.n_prefix + [self.start]
        for i, part in enumerate(parts):
            tokens += ([self.delimiter] if i else []) + part
        tokens.append(self.extract)
        predicted = [float(learned and token < self.first_special) for token in tokens]
        predicted[: self.n_prefix + 1] = [0.0] * (self.n_prefix + 1)
        labels = [] if label is None else [label]
        return Encoded(tokens, predicted, [len(tokens) - 1], labels, n_cut)


def place(record: Record, path: str, index: int) -> str:
    """Where a record stands, as messages name it: file and line, where they are known."""
    return record.where if isinstance(record, tables.Row) else f"{path}, example {index + 1}"


def task_label(record: Record, task: TaskConfig) -> Any:
    """The label of a record; where every word has one, a list.

    Raises ValueError where it is absent, null or empty.
    """
    field, is_list = task.label_field, task.entry.labels == "classes"
    if field not in record:
        known = ", ".join(record)
        raise ValueError(f"it has no field {field!r}, but {known}; name it with task.label")
    value = record[field]
    if is_list and not isinstance(value, list):
        raise ValueError(f"its tags (field {field!r}) are {tables.kind(value)}, not a list")
    for item in value if is_list else [value]:
        if item is None or isinstance(item, list | dict):
            raise ValueError(f"its label (field {field!r}) is {tables.kind(item)}")
        if isinstance(item, str) and not item.strip():
            raise ValueError(f"its label (field {field!r}) is empty")
    return value


def encoder(
    model: ModelConfig,
    task: TaskConfig,
    tokenizer: Tokenizer,
    n_prefix: int = 0,
    labelled: bool = True,
) -> Encoder:
    """The encoder of a task; `task.labels` must be known (see `examples.resolve`)."""
    return Encoder(
        task,
        tokenizer,
        model.padded_vocab_size,
        min(task.length or model.seq_len, model.seq_len),
        n_prefix,
        load_template(task.template) if task.entry.spoken else None,
        labelled,
    )


def fit(parts: Sequence[list[int]], room: int) -> list[list[int]]:
    """The parts, shortened from their ends, the longest first, until all fit into `room` tokens."""
    lengths = [len(part) for part in parts]
    while sum(lengths) > room:
        longest = lengths.index(max(lengths))
        # At once down to the next longest, or to what is asked for.
        floor = max([0, *(n for i, n in enumerate(lengths) if i != longest)])
        lengths[longest] -= max(1, min(sum(lengths) - room, lengths[longest] - floor))
    return [part[:n] for part, n in zip(parts, lengths, strict=True)]


def number(label: Any) -> float:
    """A label as a number. Raises ValueError for what is none, or not finite."""
    try:
        value = float(label)
    except (ValueError, OverflowError):
        raise ValueError(f"its label {label!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"its label {label!r} is not a finite number")
    return value


def both_orders(encoder: Encoder, record: Record, target: float | None) -> list[Encoded]:
    """The sequences of a pair in both orders, with a label."""
    first, second = (encoder.text(record, field) for field in encoder.task.record_fields)
    return [encoder.sequence([*pair], target) for pair in ((first, second), (second, first))]


def spoken(encoder: Encoder, parts: Sequence[Part]) -> Encoded:
    """Stretches of text as a sequence; cut at its end."""
    tokens = [0] * encoder.n_prefix + list(begin_tokens(encoder.tokenizer))
    learned = [0.0] * len(tokens)
    for part in parts:
        ids = encode_part(encoder.tokenizer, part)
        tokens += ids
        learned += [float(part.learned)] * len(ids)
    beyond = learned[encoder.room :]
    n_lost = sum(weight > 0 for weight in beyond)
    return Encoded(tokens[: encoder.room], learned[: encoder.room], [], [], len(beyond), n_lost)
