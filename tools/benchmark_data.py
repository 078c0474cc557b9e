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


def compare(shards: TokenShards, n: int, seq_len: int) -> tuple[float, float]:
    """Tokens per second of ours and of Grain's, medians of interleaved rounds."""
    stream = Stream([(shards, 1.0)], seq_len, seed=0)
    shuffled = grain.MapDataset.source(Windows(shards, seq_len)).seed(0).shuffle().repeat()
    batches = shuffled.batch(n)
    readers = (lambda k: stream.batch(k * n, n), lambda k: batches[k])
    rates = [[batches_per_second(read, 1000 * i) for read in readers] for i in range(ROUNDS)]
    ours, theirs = (statistics.median(column) * n * seq_len for column in zip(*rates, strict=True))
    return ours, theirs


def main() -> None:
    shards = prepare(DataConfig(source="stdlib", tokenizer="bpe:2048")).split("train")
    print(f"{'batch x tokens':>15} {'ours':>14} {'grain':>14} {'ratio':>7}   (tokens/s)")
    for n, seq_len in SHAPES:
        ours, theirs = compare(shards, n, seq_len)
        print(f"{n:>6} x {seq_len:>6} {ours:>14,.0f} {theirs:>14,.0f} {ours / theirs:>7.1f}")


if __name__ == "__main__":
    main()
