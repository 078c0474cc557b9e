"""Validation loss over a held-out split, in order, in blocks of the context length."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.data.shards import TokenShards
from gpt_jax.data.stream import evaluation_batches
from gpt_jax.models.gpt import Params
from gpt_jax.objectives.cross_entropy import LossSums
from gpt_jax.parallel.feed import process_rows, put_batch
from gpt_jax.parallel.sharding import Layout

IN_FLIGHT = 8
"""Batches handed to the devices before the first of them is read."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """A mean loss with its uncertainty and the size of what it was measured on."""

    loss: float
    """Nats per target token; of a task, its own loss per label."""
    standard_error: float
    """Standard error of `loss` over evaluation batches; nan for a single batch."""
    n_tokens: int
    """Target tokens scored: the whole blocks of the split, or the first so many; of a task, labels.
    """
    bits_per_byte: float | None = None
    """The loss in bits, times the split's tokens per UTF-8 byte; of a corpus."""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Scores by name: accuracy and the like of a task; the loss on each of several corpora."""

    def record(self) -> dict[str, float]:
        """The values under the names they have in metrics.jsonl and result.json."""
        values = {
            "validation_loss": self.loss,
            "validation_loss_standard_error": self.standard_error,
            "validation_bits_per_byte": self.bits_per_byte,
            "validation_tokens": self.n_tokens,
            **{f"validation_{name}": score for name, score in self.scores.items()},
        }
        return {name: value for name, value in values.items() if value is not None}


def validate(
    config: Config,
    evaluate: Callable[[Params, Batch], LossSums],
    params: Params,
    split: TokenShards,
    layout: Layout,
    max_sequences: int | None = None,
) -> Validation:
    """Score a split with the compiled `evaluate` step, on at most max_sequences blocks.

    Each block is seen alone: the first token after its start has one token of context
    (nanoGPT's convention for a whole split).
    """
    return _validate_lanes(config, evaluate, params, split, layout, max_sequences)[0]


def validate_lanes(
    config: Config,
    evaluate: Callable[[Params, Batch], LossSums],
    params: Params,
    split: TokenShards,
    others: Mapping[str, TokenShards],
    layout: Layout,
    max_sequences: int | None = None,
) -> list[Validation]:
    """`validate` of K models at once, where `evaluate` returns sums of shape [K] (or of [], of one
    model), with the losses on the `others` among the scores, as loss_of_NAME."""
    found = _validate_lanes(config, evaluate, params, split, layout, max_sequences)
    losses = {
        f"loss_of_{name}": _validate_lanes(config, evaluate, params, other, layout, max_sequences)
        for name, other in others.items()
    }
    return [
        dataclasses.replace(lane, scores={name: of[i].loss for name, of in losses.items()})
        for i, lane in enumerate(found)
    ]


def _validate_lanes(
    config: Config,
    evaluate: Callable[[Params, Batch], LossSums],
    params: Params,
    split: TokenShards,
    layout: Layout,
    max_sequences: int | None,
) -> list[Validation]:
    sums: list[LossSums] = []
    for batch in validation_batches(config, split, layout, max_sequences):
        sums.append(evaluate(params, batch))
        if len(sums) > IN_FLIGHT:  # a large split must not be queued on the devices at once
            sums[-1 - IN_FLIGHT] = jax.device_get(sums[-1 - IN_FLIGHT])
    sums = jax.device_get(sums)
    losses = np.asarray([s.cross_entropy for s in sums], np.float64).reshape(len(sums), -1)
    weights = np.asarray([s.weight for s in sums], np.float64).reshape(len(sums), -1)
    bytes_per_token = split.n_bytes / split.n_tokens
    return [_validation(*lane, bytes_per_token) for lane in zip(losses.T, weights.T, strict=True)]


def _validation(losses: np.ndarray, weights: np.ndarray, bytes_per_token: float) -> Validation:
    """Validation of one model, from its sums of loss and weight over each batch."""
    mean = losses.sum() / weights.sum()
    return Validation(
        loss=float(mean),
        standard_error=standard_error(losses / weights, weights),
        n_tokens=int(weights.sum()),
        bits_per_byte=float(mean / math.log(2) / bytes_per_token),
    )


def validation_batches(
    config: Config, split: TokenShards, layout: Layout, max_sequences: int | None
) -> Iterator[Batch]:
    """The split's blocks in batches placed on the devices, each of the same shape."""
    wanted = config.evaluate.batch_sequences or config.train.batch_sequences
    sequences = -(-wanted // layout.batch_parts) * layout.batch_parts
    batches = evaluation_batches(
        split,
        config.model.seq_len,
        sequences,
        max_sequences,
        rows=process_rows(sequences, layout.batch),
        separate_documents=config.data.separate_documents,
    )
    return (put_batch(batch, layout.batch, sequences) for batch in batches)


def standard_error(means: np.ndarray, weights: np.ndarray) -> float:
    """Standard error of a weighted mean of independent batches."""
    if len(means) < 2:
        return math.nan
    shares = weights / weights.sum()
    deviations = means - (shares * means).sum()
    n = len(means)
    return float(np.sqrt((shares**2 * deviations**2).sum() * n / (n - 1)))
