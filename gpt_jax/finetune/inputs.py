"""An example of a task as what the model reads: GPT-1's input transformations (its figure 1).

A row is the K sequences of an example (the options of a choice, the two orders of a pair), each of
T tokens, side by side. Three ids beyond the vocabulary are the start, delimiter and extract
tokens; the head reads at the extract token, or at the last token of every word (tag).
Must not import jax.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt_jax.config import ModelConfig, TaskConfig
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.templates import (
    Part,
    Template,
    encode_part,
    load_template,
    messages,
    render,
    render_prompt,
)
from gpt_jax.streaming import begin_tokens

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

    @property
    def start(self) -> int:
        return self.first_special

    @property
    def delimiter(self) -> int:
        return self.first_special + 1

    @property
    def extract(self) -> int:
        return self.first_special + 2

    def ids(self, text: Any) -> list[int]:
        return self.tokenizer.encode(str(text)).tolist()

    def __call__(self, record: Record) -> list[Encoded]:
        """The sequences of a record. Raises ValueError for one that lacks a field."""
        missing = [f for f in self.task.record_fields if f not in record]
        if missing and not (self.task.name == "respond" and "messages" in record):
            raise ValueError(
                f"it has no field {missing[0]!r}, but {', '.join(record)}; name the fields with "
                f"task.fields"
            )
        return ENCODERS[self.task.name](self, record)

    def label(self, record: Record) -> Any:
        """The record's label; None where it has none (examples to predict)."""
        return record.get(self.task.label_field)

    def prompt(self, record: Record) -> np.ndarray:
        """The tokens after which a response is to come: of the prompt, or of the turns so far."""
        assert self.template is not None
        turns = record.get("messages") or [
            {"role": "user", "content": record[self.task.record_fields[0]]}
        ]
        tokens = spoken(self, render_prompt(self.template, turns)).tokens
        return np.asarray(tokens, np.int32)

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
        parts = fit(parts, self.room - self.n_prefix - len(parts) - 1)
        tokens = [0] * self.n_prefix + [self.start]
        for i, part in enumerate(parts):
            tokens += ([self.delimiter] if i else []) + part
        tokens.append(self.extract)
        predicted = [float(learned and token < self.first_special) for token in tokens]
        predicted[: self.n_prefix + 1] = [0.0] * (self.n_prefix + 1)
        labels = [] if label is None else [label]
        return Encoded(tokens, predicted, [len(tokens) - 1], labels)


def encoder(
    model: ModelConfig, task: TaskConfig, tokenizer: Tokenizer, n_prefix: int = 0
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
    parts = [encoder.ids(record[field]) for field in encoder.task.record_fields]
    return [encoder.sequence(parts, target)]


def _similarity(encoder: Encoder, record: Record) -> list[Encoded]:
    """Both orders: what the head reads of the two is added up."""
    label = encoder.label(record)
    target = None if label is None else float(encoder.class_id(label))
    return _both_orders(encoder, record, target)


def _regress(encoder: Encoder, record: Record) -> list[Encoded]:
    label = encoder.label(record)
    target = None if label is None else float(label)
    if len(encoder.task.record_fields) == 2:
        return _both_orders(encoder, record, target)
    (field,) = encoder.task.record_fields
    return [encoder.sequence([encoder.ids(record[field])], target)]


def _both_orders(encoder: Encoder, record: Record, target: float | None) -> list[Encoded]:
    first, second = (encoder.ids(record[field]) for field in encoder.task.record_fields)
    return [encoder.sequence([*pair], target) for pair in ((first, second), (second, first))]


def _choose(encoder: Encoder, record: Record) -> list[Encoded]:
    """The context, and a question if there is one, with each option; the label is the index of the
    right one.

    [start] context question [delimiter] option [extract] (GPT-1, section 3.3).
    """
    context, *question, options = (record[field] for field in encoder.task.record_fields)
    label = encoder.label(record)
    if label is not None and not 0 <= int(label) < len(options):
        raise ValueError(f"its label {label!r} is no index of its {len(options)} options")
    before = [encoder.ids(context), *(encoder.ids(f" {text}") for text in question)]
    sequences = []
    for i, option in enumerate(options):
        target = None if label is None else float(i == int(label))
        # Cut before they are joined: the longest is, not the question at the end.
        *asked, answer = fit([*before, encoder.ids(option)], encoder.room - encoder.n_prefix - 3)
        sequences.append(encoder.sequence([[t for part in asked for t in part], answer], target))
    return sequences


def _tag(encoder: Encoder, record: Record) -> list[Encoded]:
    """Words with a tag each, read at a word's last token; cut where the room ends.

    A word that is left out has no position: it counts as tagged O. task.repeat: the words come
    twice, and are read the second time.
    """
    words, tags = record[encoder.task.record_fields[0]], encoder.label(record)
    if tags is not None and len(tags) != len(words):
        raise ValueError(f"it has {len(words)} words and {len(tags)} tags")
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
    return [made._replace(read=read, labels=labels)]


def _respond(encoder: Encoder, record: Record) -> list[Encoded]:
    assert encoder.template is not None
    turns = messages(record, encoder.task.record_fields)
    return [spoken(encoder, render(encoder.template, turns))]


def _prefer(encoder: Encoder, record: Record) -> list[Encoded]:
    """The chosen response and the rejected one, each after the prompt; read at its end."""
    assert encoder.template is not None
    prompt, *responses = (record[field] for field in encoder.task.record_fields)
    sequences = []
    for response in responses:
        turns = messages({"prompt": prompt, "response": response}, ("prompt", "response"))
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
    return Encoded(tokens[: encoder.room], learned[: encoder.room], [], [])


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
