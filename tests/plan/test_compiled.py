"""The real TPU compiler's word on a small model; where libtpu is not installed, nothing."""

import pytest

from gpt_jax.config import Config, overrides
from gpt_jax.cost.estimate import make_plan, weight_flops_per_sequence
from gpt_jax.cost.topology import parse_topology

pytest.importorskip("libtpu", reason="libtpu is not installed: pip install 'gpt-jax[tpu]'")

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


def test_a_step_compiles_for_a_slice_that_is_not_here():
    from gpt_jax.plan.compiled import compile_plan

    plan = make_plan(CONFIG, parse_topology("v5p:2x2x1"))
    compiled = compile_plan(plan)
    assert compiled.fits
    assert compiled.attention.startswith("splash")
    # The state, and three arrays of the batch's rows; a few small arrays are copied everywhere.
    assert compiled.argument_bytes == pytest.approx(plan.memory.state, rel=0.05)
    assert compiled.argument_bytes < compiled.peak_bytes <= compiled.total_bytes
    # Six layers and the parts of the loss, though the compiler counts each loop's body once.
    expected = weight_flops_per_sequence(CONFIG) * 32 / 4
    assert compiled.costs.flops == pytest.approx(expected, rel=0.05)
    assert compiled.once_flops < 0.6 * expected
    kinds = {c.kind for c in compiled.costs.collectives}
    assert {"all-gather", "reduce-scatter"} <= kinds
    assert 0 < compiled.cycle_seconds < 1


def test_an_unknown_slice_is_one_line():
    from gpt_jax.plan.compiled import describe

    with pytest.raises(ValueError, match="libtpu does not describe v5p:3x5x7"):
        describe(parse_topology("v5p:3x5x7"))


@pytest.mark.parametrize(
    ("topology", "changes", "kind"),
    [
        ("2xv5p:2x2x1", {"mesh.slices": 2}, "all-reduce"),
        (
            "v5p:2x2x1",
            {
                "mesh.tensor": 1,
                "mesh.expert": 2,
                "model.n_experts": 4,
                "model.expert_capacity_factor": 1.0,
            },
            "all-to-all",
        ),
    ],
    ids=["slices", "experts"],
)
def test_other_axes_compile(topology, changes, kind):
    from gpt_jax.plan.compiled import compile_plan

    plan = make_plan(overrides.override(CONFIG, changes), parse_topology(topology))
    compiled = compile_plan(plan)
    assert compiled.fits
    assert compiled.argument_bytes == pytest.approx(plan.memory.state, rel=0.05)
    assert kind in {c.kind for c in compiled.costs.collectives}
