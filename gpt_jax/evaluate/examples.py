"""How a model does on a task's examples: its loss, its predictions, and scores of these."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.evaluate.validation import IN_FLIGHT, Validation, standard_error
from gpt_jax.finetune.examples import Examples, in_order
from gpt_jax.finetune.predicted import Predicted
from gpt_jax.models.gpt import Params
from gpt_jax.objectives.cross_entropy import LossSums
from gpt_jax.parallel.feed import process_rows, put_batch
from gpt_jax.parallel.sharding import Layout

Outputs = Callable[[Params, Batch], tuple[LossSums, jax.Array]]
"""`CompiledSteps.outputs`."""


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
        scores=config.task.entry.score(config, examples, found),
    )


def _standard_error(found: Predicted) -> float:
    """Standard error of the mean loss, over the batches that have targets."""
    there = found.weights > 0
    losses, weights = found.losses[there], found.weights[there]
    return standard_error(losses / weights, weights)
