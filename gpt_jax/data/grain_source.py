"""Our stream as a random-access source for Grain, for pipelines that transform or mix further.

    import grain
    from gpt_jax.data.grain_source import StreamSource

    batches = grain.MapDataset.source(StreamSource(stream, n_samples)).batch(32)

The training loop reads `Stream` directly: see `tools/benchmark_data.py` for the two side by side.
Needs no Grain itself: the protocol is `len` and `[index]`. Must not import jax.
"""

from typing import SupportsIndex

from gpt_jax.data.batch import Array
from gpt_jax.data.stream import Stream


class StreamSource:
    """Samples 0 to n_samples - 1 of a stream, each a dict of [T] arrays."""

    def __init__(self, stream: Stream, n_samples: int):
        self.stream, self.n_samples = stream, n_samples

    def __len__(self) -> int:
        return self.n_samples

    def __getitem__(self, index: SupportsIndex) -> dict[str, Array]:
        row = self.stream.batch(int(index), 1)
        sample = {
            "tokens": row.tokens_BT[0],
            "targets": row.targets_BT[0],
            "weights": row.weights_BT[0],
        }
        return sample if row.segments_BT is None else sample | {"segments": row.segments_BT[0]}
