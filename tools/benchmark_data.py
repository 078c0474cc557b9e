"""Tokens per second of the data stream, beside Grain's shuffle over the same windows.

    python tools/benchmark_data.py

Builds the standard library corpus if it is not there yet. Both read the same memory-mapped
shards, batch after batch, in this process; interleaved, median of several rounds.
"""

import statistics
import time
from collections.abc import Callable

import grain
import numpy as np

from gpt_jax.config import DataConfig
from gpt_jax.data import Stream, TokenShards, prepare

SHAPES = ((12, 64), (8, 256), (8, 1024))
ROUNDS, SECONDS = 5, 0.5


class Windows:
    """Grain's random-access protocol over the windows that our stream cuts at offset 0."""

    def __init__(self, shards: TokenShards, seq_len: int):
        self.shards, self.seq_len = shards, seq_len

    def __len__(self) -> int:
        return (self.shards.n_tokens - 1) // self.seq_len

    def __getitem__(self, index: int) -> np.ndarray:
        return self.shards.read(int(index) * self.seq_len, self.seq_len + 1).astype(np.int32)


def batches_per_second(read: Callable[[int], object], offset: int) -> float:
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        read(offset + n)
        n += 1
    return n / (time.perf_counter() - began)


def main() -> None:
    shards = prepare(DataConfig(source="stdlib", tokenizer="bpe:2048")).split("train")
    print(f"{'batch x tokens':>15} {'ours':>14} {'grain':>14} {'ratio':>7}   (tokens/s)")
    for n, seq_len in SHAPES:
        stream = Stream([(shards, 1.0)], seq_len, seed=0)
        shuffled = grain.MapDataset.source(Windows(shards, seq_len)).seed(0).shuffle().repeat()
        theirs = shuffled.batch(n)
        ours_rate, theirs_rate = [], []
        for i in range(ROUNDS):
            offset = 1000 * i
            ours_rate.append(batches_per_second(lambda k: stream.batch(k * n, n), offset))
            theirs_rate.append(batches_per_second(lambda k: theirs[k], offset))
        a, b = (statistics.median(r) * n * seq_len for r in (ours_rate, theirs_rate))
        print(f"{n:>6} x {seq_len:>6} {a:>14,.0f} {b:>14,.0f} {a / b:>7.1f}")


if __name__ == "__main__":
    main()
