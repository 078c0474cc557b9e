"""A fine-tuning task of your own: the grade of a text, where near misses cost less than far ones.

    gpt-jax train quickstart --base runs/quickstart --name graded \
        --extension configs/extensions/my_grades.py --task.name grade \
        --task.labels poor,fair,good --task.train graded.jsonl --task.epochs 3

A record is {"text": "...", "label": "fair"}; `task.labels` names the grades in their order.
"""

import jax.numpy as jnp
import numpy as np

from gpt_jax.finetune.classes import class_ids, with_probabilities
from gpt_jax.finetune.entry import TASKS, TaskEntry
from gpt_jax.finetune.heads import linear, weighted
from gpt_jax.finetune.scores import confusion
from gpt_jax.objectives.cross_entropy import log_softmax


def encode(encoder, record):
    """One sequence: the start token, the text, the extract token, at which the label is read."""
    label = encoder.label(record)  # none of examples to predict
    (field,) = encoder.task.record_fields
    target = None if label is None else float(encoder.class_id(label))
    return [encoder.sequence([encoder.text(record, field)], target)]


def head(reading, params):
    """(log-probabilities [B, C], loss): the squared distances of the cumulative distributions."""
    log_p_BC = log_softmax(linear(reading.x_BKD[:, 0], params))
    grades_C = jnp.arange(log_p_BC.shape[1])
    reached_BC = grades_C >= reading.labels_BK
    apart_BC = jnp.cumsum(jnp.exp(log_p_BC), axis=1) - reached_BC
    return log_p_BC, weighted(jnp.sum(jnp.square(apart_BC), axis=1), reading.weights_B)


def score(config, examples, found):
    """kappa: agreement beyond chance, weighted by squared distance (Cohen 1968)."""
    labels, predicted = class_ids(config, examples, found), found.outputs.argmax(1)
    n = len(config.task.labels)
    counts = confusion(labels, predicted, n)
    distance = np.square(np.arange(n)[:, None] - np.arange(n))
    by_chance = counts.sum(axis=1)[:, None] * counts.sum(axis=0) / counts.sum()
    most = np.sum(distance * by_chance)
    kappa = 1 - np.sum(distance * counts) / most if most else 0.0
    return {"kappa": float(kappa), "accuracy": float(np.mean(labels == predicted))}


TASKS.register(
    TaskEntry(
        name="grade",
        summary="the grade of a text",
        source="Hou et al. 2016, arXiv:1611.05916, equation 6",
        fields=("text",),
        labels="class",
        reads=frozenset({"labels"}),
        encode=encode,
        head=head,
        metrics=("kappa", "accuracy", "loss"),
        score=score,
        predictions=with_probabilities,
    )
)
