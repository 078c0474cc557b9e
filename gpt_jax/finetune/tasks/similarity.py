"""Whether two texts mean the same: read in both orders. Must not import jax at its top."""

import dataclasses

from gpt_jax.finetune.inputs import Encoded, Encoder, Record, both_orders
from gpt_jax.finetune.tasks import classify


def encode(encoder: Encoder, record: Record) -> list[Encoded]:
    """Both orders: what the head reads of the two is added up."""
    label = encoder.label(record)
    target = None if label is None else float(encoder.class_id(label))
    return both_orders(encoder, record, target)


ENTRY = dataclasses.replace(
    classify.ENTRY,
    name="similarity",
    summary="the class of two texts, in whatever order",
    fields=("first", "second"),
    n_fields=(),
    encode=encode,
    n_sequences=lambda task: 2,
)
