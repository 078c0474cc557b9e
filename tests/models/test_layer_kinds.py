"""Kinds of layers as entries: one of a user's own, in the model and in the counts of FLOPs."""

import dataclasses

import jax
import numpy as np
import pytest

from gpt_jax.config import ComputeConfig, Config, ModelConfig, overrides
from gpt_jax.cost.flops import forward_flops_per_sequence
from gpt_jax.models.entry import LAYERS, LayerEntry
from gpt_jax.models.gpt import make_gpt

MODEL = ModelConfig(
    vocab_size=13, seq_len=12, n_layers=2, d_model=16, n_heads=2, position="rotary", window=6
)
COMPUTE = ComputeConfig(dtype="float32", attention="reference", products="plain")


@pytest.fixture
def half(monkeypatch):
    monkeypatch.setattr(LAYERS, "_registered", {})
    LAYERS.register(
        LayerEntry(name="half", summary="half a window", window=lambda model: model.window // 2)
    )


def test_a_kind_of_ones_own_is_computed_and_counted(half):
    """Half of a window of 6 tokens is a window of 3."""
    ours = dataclasses.replace(MODEL, layer_pattern=("dense", "half"))
    same = dataclasses.replace(MODEL, layer_pattern=("dense", "banded"), window=3)
    tokens = np.arange(24).reshape(2, 12) % 13
    found = []
    for model in (ours, same):
        gpt = make_gpt(model, COMPUTE)
        params = jax.jit(gpt.init)(jax.random.key(0))
        found.append(np.asarray(jax.jit(gpt.apply)(params, tokens)))
    np.testing.assert_array_equal(*found)
    assert forward_flops_per_sequence(ours) == forward_flops_per_sequence(same)
    assert forward_flops_per_sequence(ours) < forward_flops_per_sequence(MODEL)


def test_an_unknown_kind_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"model\.layer_pattern = bandd; allowed: banded\|dense"):
        overrides.override(Config(), {"model.layer_pattern": "bandd", "model.n_layers": 2})
