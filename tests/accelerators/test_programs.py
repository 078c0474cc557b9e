"""Training steps that must compile for a TPU v5p and an H100, without either being here.

Run where the compilers are installed (pip install 'gpt-jax[tpu]', 'gpt-jax[gpu-plan]').
"""

import importlib.util
import os
import re

import jax
import pytest

from gpt_jax.config import Config, overrides
from gpt_jax.cost.estimate import make_plan, weight_flops_per_sequence
from gpt_jax.cost.topology import parse_topology
from gpt_jax.plan import compiled as compiled_module
from gpt_jax.plan.compiled import compile_plan
from gpt_jax.plan.devices import describe, has_cudnn

pytestmark = pytest.mark.accelerator

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'gpt-jax[tpu]'",
)
needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None or not has_cudnn(),
    reason="the plugin for CUDA or cuDNN is not installed: pip install 'gpt-jax[gpu-plan]'",
)
TPU = pytest.param("v5p:2x2x1", marks=needs_libtpu, id="v5p")
GPU = pytest.param("h100:4", marks=needs_plugin, id="h100")

CONFIG = overrides.override(
    Config(),
    {
        "model.vocab_size": 32_768,
        "model.seq_len": 256,
        "model.n_layers": 6,
        "model.d_model": 256,
        "model.n_heads": 2,
        "train.batch_sequences": 32,
        "train.tokens": 256 * 32 * 8,
        "mesh.fsdp": 2,
        "mesh.tensor": 2,
        "compute.remat": "full",
    },
)


@pytest.fixture(autouse=True)
def _optimized():
    """Programs as users get them; other tests leave most of XLA's passes out."""
    before = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "1"
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def compiled_plan(topology, changes, monkeypatch):
    """(plan, what the compiler says, the program's text)."""
    texts = []
    count = compiled_module.count
    monkeypatch.setattr(
        compiled_module, "count", lambda text, device: texts.append(text) or count(text, device)
    )
    plan = make_plan(overrides.override(CONFIG, changes), parse_topology(topology))
    return plan, compile_plan(plan), texts[0]


@pytest.mark.parametrize("topology", [TPU, GPU])
def test_a_step_compiles_for_devices_that_are_not_here(topology, monkeypatch):
    plan, compiled, text = compiled_plan(topology, {"compute.loss": "parts"}, monkeypatch)
    assert compiled.fits
    on_tpu = topology.startswith("v5p")
    assert compiled.attention.startswith("splash" if on_tpu else "cudnn")
    assert ("Mosaic kernel" if on_tpu else "cuDNN attention") in compiled.costs.kernels()
    # The state, and three arrays of the batch's rows; a few small arrays are copied everywhere.
    assert compiled.argument_bytes == pytest.approx(plan.memory.state, rel=0.05)
    assert compiled.argument_bytes < compiled.total_bytes
    # Six layers and the parts of the loss, though the compiler counts each loop's body once.
    expected = weight_flops_per_sequence(plan.config) * 32 / 4
    assert compiled.costs.flops == pytest.approx(expected, rel=0.05)
    assert compiled.once_flops is None or compiled.once_flops < 0.6 * expected
    kinds = {c.kind for c in compiled.costs.collectives}
    assert {"all-gather", "reduce-scatter"} <= kinds
    assert 0 < compiled.work_seconds < 1
    assert compiled.peak_share <= 1.02
    # The new state takes the old one's place, and no parameter is copied to be read otherwise.
    assert compiled.donated_bytes == pytest.approx(plan.memory.state, rel=0.05)
    copied = sum(times * n_bytes for times, n_bytes in compiled.costs.copies)
    assert copied < 0.02 * plan.memory.params
    # Logits of all tokens of a device are nowhere.
    whole = 32 // 2 * 256 * 32_768 // 2
    assert largest(text, 32_768 // 2) < whole


def largest(text, vocabulary):
    """Elements of the largest array that has a dim of the vocabulary."""
    sizes = [0]
    for dims in re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", text):
        shape = [int(n) for n in dims.split(",")]
        if vocabulary in shape or 2 * vocabulary in shape:
            product = 1
            for n in shape:
                product *= n
            sizes.append(product)
    return max(sizes)


MASKS = {
    "banded": {"model.layer_pattern": ("dense", "banded"), "model.window": 64},
    "segments": {"data.separate_documents": True},
    "grouped": {"model.n_heads": 4, "model.head_size": 128, "model.n_kv_heads": 2},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("topology", [TPU, GPU])
def test_fused_attention_compiles_with_every_mask(topology, mask, monkeypatch):
    _, compiled, _ = compiled_plan(topology, MASKS[mask], monkeypatch)
    assert compiled.fits
    assert {"Mosaic kernel", "cuDNN attention"} & compiled.costs.kernels().keys()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        (
            {
                "mesh.tensor": 1,
                "mesh.expert": 2,
                "model.n_experts": 4,
                "model.expert_capacity_factor": 1.0,
            },
            "all-to-all",
        ),
        ({"mesh.tensor": 1, "mesh.sequence": 2}, "collective-permute"),
    ],
    ids=["experts", "ring"],
)
@pytest.mark.parametrize("topology", [TPU, GPU])
def test_other_axes_compile(topology, changes, kind, monkeypatch):
    plan, compiled, _ = compiled_plan(topology, changes, monkeypatch)
    assert compiled.fits
    assert compiled.argument_bytes == pytest.approx(plan.memory.state, rel=0.05)
    assert kind in {c.kind for c in compiled.costs.collectives}


@needs_libtpu
def test_slices_compile(monkeypatch):
    _, compiled, _ = compiled_plan("2xv5p:2x2x1", {"mesh.slices": 2}, monkeypatch)
    assert compiled.fits
    assert "all-reduce" in {c.kind for c in compiled.costs.collectives}


@needs_libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v6e:2x2", "v7x:2x2x1"])
def test_no_matmul_exceeds_the_peak(topology, monkeypatch):
    """By the compiler's cycles, at the clock that we take: a wrong one showed 128%."""
    wide = {"model.d_model": 2048, "model.n_heads": 16, "mesh.tensor": 1, "mesh.fsdp": 4}
    _, compiled, _ = compiled_plan(topology, wide, monkeypatch)
    assert 0.5 < compiled.peak_share <= 1.02


@needs_plugin
@pytest.mark.parametrize("chip", ["a100_80gb", "h200", "b200"])
def test_other_gpus_compile(chip, monkeypatch):
    plan, compiled, _ = compiled_plan(f"{chip}:1", {"mesh.fsdp": 1, "mesh.tensor": 1}, monkeypatch)
    assert compiled.fits
    assert compiled.costs.flops == pytest.approx(weight_flops_per_sequence(plan.config) * 32, 0.05)


@needs_libtpu
def test_an_unknown_slice_is_one_line():
    with pytest.raises(ValueError, match="libtpu does not describe v5p:3x5x7"):
        describe(parse_topology("v5p:3x5x7"))
