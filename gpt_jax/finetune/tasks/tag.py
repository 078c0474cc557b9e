"""A tag for every word. Must not import jax at its top."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt_jax.config import Config, TaskConfig
from gpt_jax.finetune.classes import REPORT
from gpt_jax.finetune.classes import report as table_of
from gpt_jax.finetune.entry import TaskEntry
from gpt_jax.finetune.examples import Examples
from gpt_jax.finetune.inputs import Encoded, Encoder, Record
from gpt_jax.finetune.predicted import Predicted
from gpt_jax.finetune.scores import SCHEMES, entity_report, entity_scores, tag_scheme
from gpt_jax.storage import tables
from gpt_jax.storage.atomic import write_atomically
from gpt_jax.storage.optional import require

if TYPE_CHECKING:
    import jax

    from gpt_jax.finetune.heads import Reading
    from gpt_jax.models.gpt import Params
    from gpt_jax.objectives.cross_entropy import LossSums


def encode(encoder: Encoder, record: Record) -> list[Encoded]:
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


def head(reading: "Reading", params: "Params") -> "tuple[jax.Array, LossSums]":
    """Log-probabilities of the classes at every position [B, T, C]."""
    from gpt_jax.finetune.heads import classify

    return classify(reading.x_BTD, params, reading.labels_BT, reading.label_weights_BT)


def tags(config: Config, examples: Examples, found: Predicted) -> list[list[str]]:
    """The predicted tag of every word; O for words that were cut off."""
    names: Sequence[str] = config.task.labels
    read = np.asarray(examples.batch.label_weights_BT)
    field, result = config.task.record_fields[0], []
    for i, outputs in zip(found.indices, found.outputs, strict=True):
        chosen = [names[c] for c in outputs[read[i] > 0].argmax(1)]
        result.append(chosen + ["O"] * (len(examples.records[i][field]) - len(chosen)))
    return result


def score(config: Config, examples: Examples, found: Predicted) -> dict[str, float]:
    """Scores of entities, where tags mark them, and the accuracy of tags."""
    task = config.task
    predicted = tags(config, examples, found)
    true = [[*map(str, examples.records[i][task.label_field])] for i in found.indices]
    return entity_scores(true, predicted, tag_scheme(task.labels))


def report(
    config: Config, directory: Path, examples: Examples, found: Predicted, scores: dict[str, float]
) -> None:
    """report.txt of a test by type of entities, where tags mark them."""
    task = config.task
    if scheme := tag_scheme(task.labels):
        true = [[*map(str, examples.records[i][task.label_field])] for i in found.indices]
        rows = entity_report(true, tags(config, examples, found), scheme)
        text = table_of(rows, scores, "type", "entities")
        write_atomically(directory / REPORT, text)


def predictions(config: Config, examples: Examples, found: Predicted) -> list[Record]:
    """Records with the tag of every word."""
    tagged = tags(config, examples, found)
    return [
        {**examples.records[i], "predicted": tag}
        for i, tag in zip(found.indices, tagged, strict=True)
    ]


def chosen_by(task: TaskConfig) -> str:
    """entity_f1; of tags that mark no entities, accuracy."""
    return "accuracy" if task.labels and not tag_scheme(task.labels) else "entity_f1"


def check(config: Config) -> None:
    """Raises ValueError without the library that scores entities, or entities to be scored."""
    task = config.task
    if tag_scheme(task.labels):
        require("seqeval", "finetune")
    elif task.metric == "entity_f1":
        raise ValueError(
            f"task.metric = {task.metric}: the tags {', '.join(task.labels[:5])}, ... mark no "
            f"entities as {', '.join(SCHEMES)} do (B-x, I-x, O); allowed: accuracy, loss"
        )


def notes(config: Config) -> list[str]:
    """How entities are scored."""
    scheme = tag_scheme(config.task.labels)
    if not scheme:
        return ["tags mark no entities (no B-x, I-x, O): words are scored, by accuracy"]
    strict = "" if scheme == "IOB2" else ", strictly: an entity that is not ended is none"
    return [f"tags are {scheme}, and entities are scored by it{strict}"]


ENTRY = TaskEntry(
    name="tag",
    summary="a tag for every word",
    fields=("tokens",),
    label="tags",
    labels="classes",
    reads=frozenset({"labels", "repeat", "adversarial"}),
    encode=encode,
    head=head,
    metrics=("entity_f1", "accuracy", "loss"),
    chosen_by=chosen_by,
    score=score,
    predictions=predictions,
    report=report,
    check=check,
    notes=notes,
)
