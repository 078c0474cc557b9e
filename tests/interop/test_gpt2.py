"""A model trained by another code base gives its own logits and loss here."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import ComputeConfig, DataConfig, ModelConfig
from gpt_jax.data import evaluation_batches, prepare
from gpt_jax.interop.gpt2 import params_from_gpt2
from gpt_jax.models.gpt import make_gpt
from gpt_jax.objectives.cross_entropy import cross_entropy_sums


@pytest.fixture(scope="module")
def reference(shared_data):
    directory = shared_data / "models" / "nanogpt_shakespeare_char_cpu"
    facts = json.loads((directory / "meta.json").read_text())
    with np.load(directory / "weights.npz", allow_pickle=False) as stored:
        weights = dict(stored)
    with np.load(directory / "reference.npz", allow_pickle=False) as stored:
        examples = dict(stored)
    theirs = facts["config"]
    config = ModelConfig(
        vocab_size=theirs["vocab_size"],
        seq_len=theirs["block_size"],
        n_layers=theirs["n_layer"],
        n_heads=theirs["n_head"],
        d_model=theirs["n_embd"],
        bias=theirs["bias"],
        activation="gelu",
        norm_epsilon=facts["ln_eps"],
    )
    return config, weights, examples, facts


@pytest.mark.smoke
@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_logits_of_a_nanogpt_model(reference, layers):
    config, weights, examples, _ = reference
    params = params_from_gpt2(weights, config, "out_in")
    model = make_gpt(config, ComputeConfig(dtype="float32", layers=layers))
    logits = jax.jit(model.apply)(params, examples["idx"])
    # The model has learned something, so a constant answer would be far off.
    assert np.std(examples["logits"]) > 1
    np.testing.assert_allclose(logits, examples["logits"], atol=1e-4)


def test_whole_validation_loss_of_a_nanogpt_model(reference, shared_data, tmp_path):
    config, weights, _, facts = reference
    data = DataConfig(
        source="text",
        path=str(shared_data / "text" / "tinyshakespeare.txt"),
        tokenizer="char",
        validation="tail",
        validation_fraction=0.1,
        cache=str(tmp_path),
    )
    corpus = prepare(data, progress=False)
    assert "".join(corpus.tokenizer.decode(range(65))) == facts["itos"]
    model = make_gpt(config, ComputeConfig(dtype="float32"))
    params = params_from_gpt2(weights, config, "out_in")

    @jax.jit
    def score(params, batch):
        return cross_entropy_sums(
            model.apply(params, batch.tokens_BT), batch.targets_BT, batch.weights_BT
        )

    batches = evaluation_batches(corpus.split("validation"), config.seq_len, 134)
    total = jax.tree.map(
        lambda *x: sum(map(float, x)), *[score(params, batch) for batch in batches]
    )
    assert total.weight == facts["full_val_blocks"] * config.seq_len
    loss = total.cross_entropy / total.weight
    assert loss == pytest.approx(facts["full_val_loss_nonoverlapping_64"], abs=1e-4)


def test_conv1d_and_linear_storage_give_the_same_parameters(reference):
    config, weights, _, _ = reference
    turned = {k: v.T if v.ndim == 2 and ".h." in k else v for k, v in weights.items()}
    ours = params_from_gpt2(weights, config, "out_in")
    again = params_from_gpt2(turned, config, "in_out")
    jax.tree.map(np.testing.assert_array_equal, ours, again)
    abstract = jax.eval_shape(make_gpt(config).init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(lambda x: x.shape, abstract)


def test_mistakes_are_named(reference):
    config, weights, _, _ = reference
    missing = {k: v for k, v in weights.items() if k != "transformer.h.2.mlp.c_fc.weight"}
    with pytest.raises(ValueError, match=r"no transformer\.h\.2\.mlp\.c_fc\.weight"):
        params_from_gpt2(missing, config, "out_in")
    with pytest.raises(ValueError, match=r"no place for the weights transformer\.h\.3"):
        params_from_gpt2(weights, dataclasses.replace(config, n_layers=3), "out_in")
    with pytest.raises(ValueError, match="need position = learned"):
        params_from_gpt2(weights, dataclasses.replace(config, position="rotary"), "out_in")
