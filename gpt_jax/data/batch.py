"""Batch of one training step. Must not import jax: numpy arrays, moved to devices by the loop."""

from typing import Any, NamedTuple, TypeAlias

Array: TypeAlias = Any
"""A numpy array on the host, a jax.Array on the devices."""


class Batch(NamedTuple):
    """B rows of T tokens, each with the token that follows it; int32, weights float32.

    weights_BT is 1 where a target counts, and 0 where there is none: padding rows, and the last
    token of a document when documents are kept apart and no end-of-text token follows it.
    segments_BT numbers the documents within a row from 1; None: attention crosses documents.

    A task's examples (`gpt_jax.finetune`) are rows of K sequences side by side, T tokens in all,
    and have labels where a head reads them; both float32.
    """

    tokens_BT: Array
    targets_BT: Array
    weights_BT: Array
    segments_BT: Array | None
    labels_BT: Array | None = None
    """The label at each position that is read: a class, a value, or 1 for the right option."""
    label_weights_BT: Array | None = None
    """Weight of each position's label in the loss; 0 where no label is read."""
    images_BX: Array | None = None
    """An image before each row, flattened: uint8 [B, height width channels]."""
    positions_BT: Array | None = None
    """The position of each token, int32, where they begin anew within a row; None: 0 to T - 1."""
