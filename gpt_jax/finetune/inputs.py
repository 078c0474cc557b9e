"""An example of a task as what the model reads: GPT-1's input transformations (its figure 1).

A row is the K sequences of an example (the options of a choice, the two orders of a pair), each of
T tokens, side by side. Three ids beyond the vocabulary are the start, delimiter and extract
tokens; the head reads at the extract token, or at the last token of every word (tag).
Must not import jax.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt_jax.config import ModelConfig, TaskConfig
from gpt_jax.data.streaming import begin_tokens
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.templates import (
    Part,
    Template,
    encode_part,
    exchange,
    given_turns,
    load_template,
    messages,
    render,
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
        if missing and not (self.task.name == "respond" and "messages" in record):
            raise ValueError(
                f"it has no field {missing[0]!r}, but {', '.join(record)}; name the fields with "
                f"task.fields"
            )
        return ENCODERS[self.task.name](self, record)

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
    """The label of a record; of task.name = tag, a list. Raises ValueError where it is absent,
    null or empty."""
    field, is_list = task.label_field, task.name == "tag"
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
    spoken = task.name in ("respond", "prefer")
    return Encoder(
        task,
        tokenizer,
        model.padded_vocab_size,
        min(task.length or model.seq_len, model.seq_len),
        n_prefix,
        load_template(task.template) if spoken else None,
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


def _classify(encoder: Encoder, record: Record) -> list[Encoded]:
    """One text, or several in their order with delimiters between (entailment)."""
    label = encoder.label(record)
    target = None if label is None else float(encoder.class_id(label))
    parts = [encoder.text(record, field) for field in encoder.task.record_fields]
    return [encoder.sequence(parts, target)]


def _similarity(encoder: Encoder, record: Record) -> list[Encoded]:
    """Both orders: what the head reads of the two is added up."""
    label = encoder.label(record)
    target = None if label is None else float(encoder.class_id(label))
    return _both_orders(encoder, record, target)


def _regress(encoder: Encoder, record: Record) -> list[Encoded]:
    label = encoder.label(record)
    target = None if label is None else number(label)
    if len(encoder.task.record_fields) == 2:
        return _both_orders(encoder, record, target)
    (field,) = encoder.task.record_fields
    return [encoder.sequence([encoder.text(record, field)], target)]


def number(label: Any) -> float:
    """A label as a number. Raises ValueError for what is none, or not finite."""
    try:
        value = float(label)
    except (ValueError, OverflowError):
        raise ValueError(f"its label {label!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"its label {label!r} is not a finite number")
    return value


def option_index(label: Any, n_options: int) -> int:
    """A label as the index of an option. Raises ValueError for what is none."""
    index = number(label)
    if not index.is_integer() or not 0 <= index < n_options:
        raise ValueError(f"its label {label!r} is no index of its {n_options} options")
    return int(index)


def _both_orders(encoder: Encoder, record: Record, target: float | None) -> list[Encoded]:
    first, second = (encoder.text(record, field) for field in encoder.task.record_fields)
    return [encoder.sequence([*pair], target) for pair in ((first, second), (second, first))]


def _choose(encoder: Encoder, record: Record) -> list[Encoded]:
    """The context, and a question if there is one, with each option; the label is the index of the
    right one.

    [start] context question [delimiter] option [extract] (GPT-1, section 3.3).
    """
    context, *question, field = encoder.task.record_fields
    options = tables.text_list(record[field], f"its field {field!r}")
    if not options:
        raise ValueError(f"its field {field!r} has no option")
    label = encoder.label(record)
    right = None if label is None else option_index(label, len(options))
    before = [encoder.text(record, context)]
    before += [encoder.ids(f" {tables.as_text(record[q], f'its field {q!r}')}") for q in question]
    sequences = []
    for i, option in enumerate(options):
        target = None if right is None else float(i == right)
        parts = [*before, encoder.ids(option)]
        # Cut before they are joined: the longest is, not the question at the end.
        *asked, answer = fit(parts, encoder.room - encoder.n_prefix - 3)
        made = encoder.sequence([[t for part in asked for t in part], answer], target)
        n_cut = sum(map(len, parts)) - sum(map(len, asked)) - len(answer)
        sequences.append(made._replace(n_cut=n_cut))
    return sequences


def _tag(encoder: Encoder, record: Record) -> list[Encoded]:
    """Words with a tag each, read at a word's last token; cut where the room ends.

    A word that is left out has no position: it counts as tagged O. task.repeat: the words come
    twice, and are read the second time.
    """
    (field,) = encoder.task.record_fields
    words, tags = tables.text_list(record[field], f"its field {field!r}"), encoder.label(record)
    if tags is not None and len(tags) != len(words):
        raise ValueError(f"it has {len(words)} words and {len(tags)} tags")
    if tags is not None and not words:
        raise ValueError("it has no words")
    pieces = [encoder.ids((" " if i else "") + word) or [0] for i, word in enumerate(words)]
    times = 2 if encoder.task.repeat else 1
    room = (encoder.room - encoder.n_prefix - times - 1) // times
    n_words, n_tokens = 0, 0
    while n_words < len(pieces) and n_tokens + len(pieces[n_words]) <= room:
        n_tokens += len(pieces[n_words])
        n_words += 1
    flat = [token for piece in pieces[:n_words] for token in piece]
    made = encoder.sequence([flat] * times, None)
    begin, read = len(made.tokens) - 1 - n_tokens, []
    for piece in pieces[:n_words]:
        begin += len(piece)
        read.append(begin - 1)
    labels = [] if tags is None else [float(encoder.class_id(tag)) for tag in tags[:n_words]]
    n_cut = sum(map(len, pieces)) - n_tokens
    return [made._replace(read=read, labels=labels, n_cut=n_cut, n_lost=len(words) - n_words)]


def _respond(encoder: Encoder, record: Record) -> list[Encoded]:
    assert encoder.template is not None
    turns = messages(record, encoder.task.record_fields)
    return [spoken(encoder, render(encoder.template, turns))]


def _prefer(encoder: Encoder, record: Record) -> list[Encoded]:
    """The chosen response and the rejected one, each after the prompt; read at its end."""
    assert encoder.template is not None
    asked, *responses = encoder.task.record_fields
    sequences = []
    for response in responses:
        turns = exchange(record, asked, response)
        made = spoken(encoder, render(encoder.template, turns))
        # The label is filled in later: the log-probability under the model that training begins at.
        sequences.append(made._replace(read=[len(made.tokens) - 1], labels=[0.0]))
    return sequences


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


ENCODERS: dict[str, Callable[[Encoder, Record], list[Encoded]]] = {
    "classify": _classify,
    "entail": _classify,
    "similarity": _similarity,
    "choose": _choose,
    "regress": _regress,
    "tag": _tag,
    "respond": _respond,
    "prefer": _prefer,
}
