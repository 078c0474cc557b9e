"""The class of a text, or of several in their order. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.finetune.classes import (
    METRICS,
    check_f1,
    class_scores,
    with_probabilities,
    write_class_report,
)
from gpt_jax.finetune.entry import TaskEntry
from gpt_jax.finetune.inputs import Encoded, Encoder, Record

if TYPE_CHECKING:
    import jax

    from gpt_jax.finetune.heads import Reading
    from gpt_jax.models.gpt import Params
    from gpt_jax.objectives.cross_entropy import LossSums


def encode(encoder: Encoder, record: Record) -> list[Encoded]:
    """One text, or several in their order with delimiters between (entailment)."""
    label = encoder.label(record)
    target = None if label is None else float(encoder.class_id(label))
    parts = [encoder.text(record, field) for field in encoder.task.record_fields]
    return [encoder.sequence(parts, target)]


def head(reading: "Reading", params: "Params") -> "tuple[jax.Array, LossSums]":
    """Log-probabilities of the classes [B, C], from the sum of what is read of the sequences."""
    from gpt_jax.finetune.heads import classify

    return classify(reading.x_BKD.sum(axis=1), params, reading.labels_BK[:, 0], reading.weights_B)


READS = frozenset({"labels", "adversarial", "robustness"})

ENTRY = TaskEntry(
    name="classify",
    summary="the class of a text, or of two",
    source="Radford et al. 2018 (GPT-1), section 3.3",
    fields=("text",),
    n_fields=(1, 2),
    labels="class",
    reads=READS,
    encode=encode,
    head=head,
    metrics=METRICS,
    score=class_scores,
    predictions=with_probabilities,
    report=write_class_report,
    check=check_f1,
)
