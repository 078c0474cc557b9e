"""A number for a text, or for two in both orders. Must not import jax at its top."""

from typing import TYPE_CHECKING

import numpy as np

from gpt_jax.config import Config
from gpt_jax.finetune import scores
from gpt_jax.finetune.entry import TaskEntry
from gpt_jax.finetune.examples import Examples
from gpt_jax.finetune.inputs import Encoded, Encoder, Record, both_orders, number
from gpt_jax.finetune.predicted import Predicted

if TYPE_CHECKING:
    import jax

    from gpt_jax.finetune.heads import Reading
    from gpt_jax.models.gpt import Params
    from gpt_jax.objectives.cross_entropy import LossSums


def encode(encoder: Encoder, record: Record) -> list[Encoded]:
    """The text; of two, both orders: what the head reads of them is added up."""
    label = encoder.label(record)
    target = None if label is None else number(label)
    if len(encoder.task.record_fields) == 2:
        return both_orders(encoder, record, target)
    (field,) = encoder.task.record_fields
    return [encoder.sequence([encoder.text(record, field)], target)]


def head(reading: "Reading", params: "Params") -> "tuple[jax.Array, LossSums]":
    """The value [B], from the sum of what is read of the sequences; squared differences."""
    from gpt_jax.finetune.heads import linear, weighted

    value_B = linear(reading.x_BKD.sum(axis=1), params)[:, 0]
    return value_B, weighted((value_B - reading.labels_BK[:, 0]) ** 2, reading.weights_B)


def score(config: Config, examples: Examples, found: Predicted) -> dict[str, float]:
    """pearson and spearman."""
    field = config.task.label_field
    true_values = [float(examples.records[i][field]) for i in found.indices]
    return scores.value_scores(np.asarray(true_values), found.outputs)


def predictions(config: Config, examples: Examples, found: Predicted) -> list[Record]:
    """Records with the number."""
    return [
        {**examples.records[i], "predicted": float(value)}
        for i, value in zip(found.indices, found.outputs, strict=True)
    ]


ENTRY = TaskEntry(
    name="regress",
    summary="a number for a text, or for two",
    source="Radford et al. 2018 (GPT-1), section 4.2 (STS-B)",
    fields=("text",),
    n_fields=(1, 2),
    labels="value",
    reads=frozenset({"adversarial"}),
    encode=encode,
    n_sequences=lambda task: len(task.record_fields),
    head=head,
    metrics=("pearson", "spearman", "loss"),
    score=score,
    predictions=predictions,
)
