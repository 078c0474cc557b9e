"""LoRA's factors in peft's folder: with numpy against the merged export, and in peft itself."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_runs import ARCHITECTURES, FLOAT32, model_config, random_params
from safetensors.numpy import load_file

from gpt_jax.adapt import make_adaptation
from gpt_jax.config import AdaptConfig
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.interop.folders import write_folder
from gpt_jax.interop.peft_folder import write_adapter
from gpt_jax.models.gpt import make_gpt

CASES = {
    "gpt2": AdaptConfig(method="lora", rank=3, alpha=7.0),
    "gpt2 pattern": AdaptConfig(
        method="lora", rank=2, targets=("query", "key", "value", "out", "up", "down")
    ),
    "gpt1": AdaptConfig(method="adalora", rank=2, targets=("key", "up")),
    "llama grouped": AdaptConfig(method="lora", rank=4, targets=("query", "value", "gate", "down")),
}


@functools.cache
def adapted(name):
    """(model, base, all parameters, merged ones), away from the start."""
    config = model_config(ARCHITECTURES[name][1])
    model, base = make_gpt(config, FLOAT32), random_params(config)
    adaptation = make_adaptation(CASES[name], model)
    frozen, trained = adaptation.init(jax.random.key(0), base)
    trained = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), trained
    )
    params = adaptation.combine(frozen, trained)
    return adaptation.model, base, params, adaptation.merge(params)


def export(name, params, folder):
    model = adapted(name)[0]
    write_folder(folder, model.config, params, ByteTokenizer(), 10**9)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_factors_are_the_difference_of_the_merged_export(name, tmp_path):
    model, base, params, merged = adapted(name)
    n = write_adapter(tmp_path / "adapter", model.config, params, "base")
    facts = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    before = load_file(export(name, base, tmp_path / "base") / "model.safetensors")
    after = load_file(export(name, merged, tmp_path / "merged") / "model.safetensors")
    changed = 0
    for weight, old in before.items():
        a = factors.get(f"base_model.model.{weight.removesuffix('.weight')}.lora_A.weight")
        if a is None:
            np.testing.assert_array_equal(after[weight], old)
            continue
        changed += 1
        b = factors[f"base_model.model.{weight.removesuffix('.weight')}.lora_B.weight"]
        target = ".".join(weight.removesuffix(".weight").split(".")[-2:])
        assert facts["rank_pattern"][target] == len(a)
        delta = facts["alpha_pattern"][target] / len(a) * b @ a
        delta = delta.T if facts["fan_in_fan_out"] else delta
        assert np.abs(delta).max() > 1e-3
        np.testing.assert_allclose(after[weight], old + delta, atol=1e-5)
    assert changed == n == len(factors) // 2


def test_a_run_without_factors_is_refused(tmp_path):
    model, base, _, _ = adapted("gpt2")
    with pytest.raises(ValueError, match="no low-rank terms"):
        write_adapter(tmp_path / "x", model.config, base, "")


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_peft_computes_our_logits(name, tmp_path):
    torch = pytest.importorskip("torch", reason="needs pip install 'gpt-jax[parity]'")
    peft = pytest.importorskip("peft", reason="needs pip install 'gpt-jax[parity]'")
    transformers = pytest.importorskip("transformers")
    model, base, params, _ = adapted(name)
    write_adapter(tmp_path / "adapter", model.config, params, str(tmp_path / "base"))
    export(name, base, tmp_path / "base")
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", dtype=torch.float32, attn_implementation="eager"
    )
    tokens = np.random.default_rng(1).integers(0, 300, (2, 30))
    tuned = peft.PeftModel.from_pretrained(peer, tmp_path / "adapter").eval()
    with torch.no_grad():
        theirs = tuned(torch.tensor(tokens)).logits.numpy()
    ours = np.asarray(jax.jit(model.apply)(params, tokens))[..., :300]
    plain = np.asarray(jax.jit(model.apply)(base, tokens))[..., :300]
    assert np.abs(ours - plain).max() > 0.05
    np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=0)
