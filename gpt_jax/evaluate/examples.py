"""How a model does on a task's examples: its loss, its predictions, and scores of these."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gpt_jax.config import Config
from gpt_jax.config.task import tag_scheme
from gpt_jax.data.batch import Batch
from gpt_jax.evaluate.validation import IN_FLIGHT, Validation, standard_error
from gpt_jax.finetune import scores
from gpt_jax.finetune.examples import Examples, in_order
from gpt_jax.models.gpt import Params
from gpt_jax.objectives.cross_entropy import LossSums
from gpt_jax.parallel.feed import process_rows, put_batch
from gpt_jax.parallel.sharding import Layout

Outputs = Callable[[Params, Batch], tuple[LossSums, jax.Array]]
"""`CompiledSteps.outputs`."""


class Predicted(NamedTuple):
    """A model's outputs and losses on examples, in the examples' order."""

    indices: np.ndarray
    """[N] of the examples."""
    outputs: np.ndarray
    """[N, ...]: see `gpt_jax.finetune.heads.task_outputs`."""
    losses: np.ndarray
    """[batches] sums."""
    weights: np.ndarray

    @property
    def loss(self) -> float:
        """The mean; nan where nothing counts."""
        total = self.weights.sum()
        return float(self.losses.sum() / total) if total else math.nan


def predict(
    config: Config,
    outputs: Outputs,
    params: Params,
    examples: Examples,
    layout: Layout,
    max_rows: int | None = None,
) -> Predicted:
    """Outputs of all examples, or of max_rows evenly spaced ones."""
    wanted = config.evaluate.batch_sequences or config.train.batch_sequences
    n_rows = -(-wanted // layout.batch_parts) * layout.batch_parts
    mine = process_rows(n_rows, layout.batch)
    pending: list[Any] = []
    indices = []
    for index, batch in in_order(examples, n_rows, max_rows, mine):
        indices.append(index)
        pending.append(outputs(params, put_batch(batch, layout.batch, n_rows)))
        if len(pending) > IN_FLIGHT:
            pending[-1 - IN_FLIGHT] = jax.device_get(pending[-1 - IN_FLIGHT])
    read = jax.device_get(pending)
    index = np.concatenate(indices)
    there = index >= 0
    return Predicted(
        index[there],
        np.concatenate([np.asarray(values) for _, values in read])[there],
        np.asarray([sums.cross_entropy for sums, _ in read], np.float64),
        np.asarray([sums.weight for sums, _ in read], np.float64),
    )


def validate_examples(
    config: Config,
    outputs: Outputs,
    params: Params,
    examples: Examples,
    layout: Layout,
    max_rows: int | None = None,
) -> Validation:
    """Loss and scores of a task."""
    found = predict(config, outputs, params, examples, layout, max_rows)
    return Validation(
        loss=found.loss,
        standard_error=_standard_error(found),
        n_tokens=int(found.weights.sum()),
        scores=score(config, examples, found),
    )


def _standard_error(found: Predicted) -> float:
    """Standard error of the mean loss, over the batches that have targets."""
    there = found.weights > 0
    losses, weights = found.losses[there], found.weights[there]
    return standard_error(losses / weights, weights)


def score(config: Config, examples: Examples, found: Predicted) -> dict[str, float]:
    """The scores of predictions, by the task's kind."""
    task = config.task
    if task.name == "respond":
        return {}
    if task.name == "prefer":
        return {
            "accuracy": float(np.mean(found.outputs > 0)),
            "margin": float(found.outputs.mean()),
        }
    if task.name == "tag":
        predicted = tags(config, examples, found)
        true = [[*map(str, examples.records[i][task.label_field])] for i in found.indices]
        return scores.entity_scores(true, predicted, tag_scheme(task.labels))
    if task.name == "regress":
        true_values = [float(examples.records[i][task.label_field]) for i in found.indices]
        return scores.value_scores(np.asarray(true_values), found.outputs)
    n = max(len(task.labels), found.outputs.shape[1])
    result = scores.class_scores(class_ids(config, examples, found), found.outputs.argmax(1), n)
    # Of a choice the numbers of the options are no classes.
    return {"accuracy": result["accuracy"]} if task.name == "choose" else result


def class_ids(config: Config, examples: Examples, found: Predicted) -> np.ndarray:
    """[N] the right class, or option, of each example that was predicted."""
    names, field = config.task.labels, config.task.label_field
    labels = [examples.records[i][field] for i in found.indices]
    return np.asarray([names.index(str(x)) if names else int(x) for x in labels], np.int64)


def tags(config: Config, examples: Examples, found: Predicted) -> list[list[str]]:
    """The predicted tag of every word; O for words that were cut off."""
    names: Sequence[str] = config.task.labels
    read = np.asarray(examples.batch.label_weights_BT)
    field, result = config.task.record_fields[0], []
    for i, outputs in zip(found.indices, found.outputs, strict=True):
        chosen = [names[c] for c in outputs[read[i] > 0].argmax(1)]
        result.append(chosen + ["O"] * (len(examples.records[i][field]) - len(chosen)))
    return result
