"""What a step consumes. Must not import jax: numpy arrays, moved to devices by the loop."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Batch(NamedTuple):
    """B rows of T tokens, each with the token that follows it.

    weights_BT is 1 where a target counts, and 0 where there is none: padding rows, and the last
    token of a document when documents are kept apart and no end-of-text token follows it.
    segments_BT numbers the documents within a row from 1; None: attention crosses documents.
    """

    tokens_BT: NDArray[np.int32]
    targets_BT: NDArray[np.int32]
    weights_BT: NDArray[np.float32]
    segments_BT: NDArray[np.int32] | None
