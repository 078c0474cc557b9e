"""Grain reads our stream: the same samples in the same order, resumed anywhere."""

import numpy as np
import pytest

from gpt_jax.config import DataConfig
from gpt_jax.data import Stream, prepare
from gpt_jax.data.grain_source import StreamSource

grain = pytest.importorskip("grain", reason="grain is in the data extra")


def test_grain_batches_equal_the_streams(tmp_path):
    (tmp_path / "text").mkdir()
    for i in range(20):
        (tmp_path / "text" / f"{i}.txt").write_text(f"document {i} " * 50)
    data = DataConfig(
        source="text",
        path=str(tmp_path / "text"),
        tokenizer="byte",
        validation="tail",
        validation_fraction=0.1,
        cache=str(tmp_path),
    )
    stream = Stream([(prepare(data, progress=False).split("train"), 1.0)], seq_len=16, seed=3)
    dataset = grain.MapDataset.source(StreamSource(stream, 64)).batch(8)
    assert len(dataset) == 8
    for index in (0, 5, 2):
        ours = stream.batch(index * 8, 8)
        np.testing.assert_array_equal(dataset[index]["tokens"], ours.tokens_BT)
        np.testing.assert_array_equal(dataset[index]["targets"], ours.targets_BT)
    # Not a constant source: batches differ from one another.
    assert (dataset[0]["tokens"] != dataset[1]["tokens"]).any()
