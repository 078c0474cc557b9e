"""What a step consumes. Must not import jax: numpy arrays, moved to devices by the loop."""

from typing import Any, NamedTuple, TypeAlias

Array: TypeAlias = Any
"""A numpy array on the host, a jax.Array on the devices."""


class Batch(NamedTuple):
    """B rows of T tokens, each with the token that follows it; int32, weights float32.

    weights_BT is 1 where a target counts, and 0 where there is none: padding rows, and the last
    token of a document when documents are kept apart and no end-of-text token follows it.
    segments_BT numbers the documents within a row from 1; None: attention crosses documents.
    """

    tokens_BT: Array
    targets_BT: Array
    weights_BT: Array
    segments_BT: Array | None
