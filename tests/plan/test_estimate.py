"""Closed forms of a plan against counts made in another way, and how they scale."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax import flops, hardware, losses, overrides
from gpt_jax.config import Config
from gpt_jax.models.gpt import make_gpt
from gpt_jax.optim import make_optimizer
from gpt_jax.plan import memory
from gpt_jax.plan.estimate import executed_flops_per_sequence, make_plan
from gpt_jax.plan.mesh import MeshSizes, mesh_sizes
from gpt_jax.plan.search import SETTINGS, as_overrides, candidates, search
from gpt_jax.plan.topology import parse_topology

SMALL = overrides.override(
    Config(),
    {
        "model.vocab_size": 512,
        "model.seq_len": 128,
        "model.n_layers": 4,
        "model.d_model": 64,
        "model.n_heads": 8,
        "train.batch_sequences": 64,
        "train.tokens": 128 * 64 * 10,
    },
)
V4 = parse_topology("v4:2x2x2")


def changed(**changes) -> Config:
    return overrides.override(SMALL, {key.replace("__", "."): v for key, v in changes.items()})


# --- topologies ---------------------------------------------------------------------------------


@given(
    chip=st.sampled_from(hardware.CHIPS),
    sizes=st.lists(st.integers(1, 64), min_size=3, max_size=3),
)
def test_a_topology_is_read_as_it_is_written(chip, sizes):
    shape = tuple(sizes[: chip.interconnect.dims or 1])
    name = f"{chip.name.removeprefix('tpu_')}:{'x'.join(map(str, shape))}"
    topology = parse_topology(name)
    assert (topology.chip, topology.shape, topology.name) == (chip, shape, name)
    assert topology.n_devices == math.prod(shape) * chip.devices_per_chip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5p", "allowed: CHIP:SIZE"),
        ("v5p:8x8x", "allowed: CHIP:SIZE"),
        ("v5p:8x8", "a slice of tpu_v5p has 3 dims"),
        ("v6e:4x4x4", "a slice of tpu_v6e has 2 dims"),
        ("h100:8x8", "of GPUs give their number"),
        ("v4:0x2x2", "at least 1"),
        ("v5:8x8x8", "unknown chip 'v5', did you mean 'v5"),
        ("h200s:8", "did you mean 'h200'"),
    ],
)
def test_other_topologies_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_topology(text)


def test_an_axis_has_its_share_of_the_links():
    torus = parse_topology("v5p:8x8x8")
    assert torus.axis_bandwidth(8) == pytest.approx(200e9)
    assert torus.axis_bandwidth(64) == pytest.approx(400e9)
    assert torus.axis_bandwidth(512) == pytest.approx(600e9)
    gpus = parse_topology("h100:64")
    assert gpus.axis_bandwidth(8) == pytest.approx(450e9)
    assert gpus.axis_bandwidth(8, outer=8) == gpus.axis_bandwidth(16) == pytest.approx(50e9)


# --- memory and FLOPs ---------------------------------------------------------------------------


def test_the_state_is_what_is_allocated():
    """Bytes of the arrays that training creates, from their shapes."""
    config = changed(optimizer__ema_decay=0.9)
    model = make_gpt(config.model)
    params = jax.eval_shape(model.init, jax.random.key(0))
    optimizer = make_optimizer(config.optimizer, params, learning_rate=0.0, model=config.model)
    state = jax.eval_shape(optimizer.init, params)

    def n_bytes(tree):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if x.ndim)

    got = memory.estimate(config, MeshSizes(1, 1, 1))
    assert (got.params, got.optimizer, got.ema) == (n_bytes(params), n_bytes(state), got.params)
    split = memory.estimate(config, MeshSizes(2, 2, 4))
    assert split.state == got.state / 8
    assert split.gradients == got.gradients / 8


def test_less_is_kept_the_more_is_recomputed():
    kept = {
        remat: memory.estimate(changed(compute__remat=remat), MeshSizes(1, 1, 1)).kept
        for remat in ("full", "dots", "attention", "none")
    }
    assert list(kept.values()) == sorted(kept.values())
    # One residual stream a layer, in bfloat16.
    assert kept["full"] == 64 * 128 * 4 * 64 * 2


def test_microbatches_tensor_and_batch_axes_divide_what_is_kept():
    whole = memory.estimate(SMALL, MeshSizes(1, 1, 1)).kept
    assert memory.estimate(changed(compute__microbatches=4), MeshSizes(1, 1, 1)).kept == whole / 4
    assert memory.estimate(SMALL, MeshSizes(2, 4, 1)).kept == whole / 8
    full = changed(compute__remat="full")
    alone = memory.estimate(full, MeshSizes(1, 1, 1)).kept
    assert memory.estimate(full, MeshSizes(1, 1, 8)).kept == alone / 8


def test_parts_of_logits_are_as_large_as_the_loss_makes_them():
    assert memory.LOGIT_BYTES == losses.LOGIT_BYTES


@pytest.mark.parametrize("remat", ["none", "attention", "dots", "full"])
def test_executed_flops_are_those_of_the_program(remat):
    """The products in the traced gradient; the attention that it runs is counted apart."""
    config = changed(compute__remat=remat, compute__attention="reference", compute__loss="whole")
    model = make_gpt(config.model, config.compute, backend="gpu")
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = jax.ShapeDtypeStruct((1, 128), np.int32)

    def loss(params, tokens):
        return model.apply(params, tokens).mean()

    products = _product_flops(jax.make_jaxpr(jax.grad(loss))(params, batch).jaxpr)
    attention = flops.forward_flops_per_sequence(config.model) - 2 * 128 * (
        flops.count_parameters(config.model).n_params_matmul
    )
    # The whole square, by plain products. Of recomputed attention alone only scores are asked for.
    reference = {"none": 3, "attention": 3.5, "dots": 4, "full": 4}[remat] * attention
    ours = executed_flops_per_sequence(config)
    causal = flops.forward_flops_per_sequence(config.model, "exact_causal") - (
        flops.forward_flops_per_sequence(config.model) - attention
    )
    fused = (4.5 + (remat != "none")) * causal
    assert ours - fused == pytest.approx(products - reference, rel=1e-6)


def _product_flops(jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in jax.core.jaxprs_in_params(equation.params):
            total += repeats * _product_flops(inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            size = math.prod(equation.outvars[0].aval.shape)
            total += 2 * size * math.prod(left[d] for d in contracted)
    return total


def test_one_device_sends_nothing_and_more_send_along_their_axis():
    one = make_plan(changed(), parse_topology("v4:1x1x1"))
    assert one.traffic == ()
    axes = {
        axis: make_plan(changed(**{f"mesh__{axis}": 8, **rest}), V4).traffic
        for axis, rest in (("data", {}), ("fsdp", {}), ("tensor", {}))
    }
    assert {axis: [t.axis for t in found] for axis, found in axes.items()} == {
        axis: [axis] for axis in axes
    }
    # An all-reduce of float32 gradients, in a ring.
    n_params = flops.count_parameters(SMALL.model).n_params_padded
    assert axes["data"][0].sent_bytes == pytest.approx(2 * 4 * n_params * 7 / 8)


def test_the_bound_is_the_slowest_of_three():
    plan = make_plan(changed(mesh__fsdp=8), V4, price=2.0)
    assert plan.step_seconds == max(plan.compute_seconds, plan.memory_seconds, plan.network_seconds)
    assert plan.n_steps == 10
    assert plan.days * 86_400 == pytest.approx(plan.n_steps * plan.step_seconds)
    assert plan.cost == pytest.approx(2.0 * plan.n_steps * plan.step_seconds / 3600 * 8)
    peak = 275e12
    palm = flops.training_flops_per_sequence(SMALL.model, "palm") * 64 / 8
    assert plan.mfu_bound == pytest.approx(palm / (plan.step_seconds * peak))


# --- meshes and the search ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh__fsdp": 3}, "mesh.fsdp = 3 does not divide 8 devices"),
        ({"mesh__data": 16}, "mesh.data = 16 does not make up 8 devices"),
        ({"train__batch_sequences": 4}, "= 4 is not divisible by mesh.data x mesh.fsdp = 8"),
        ({"model__n_heads": 4, "mesh__tensor": 8}, "model.n_heads = 4 is not divisible"),
    ],
)
def test_a_mesh_that_does_not_fit_says_which_number(changes, message):
    with pytest.raises(ValueError, match=message):
        mesh_sizes(changed(**changes), 8)


def test_the_search_finds_plans_that_fit_and_ranks_them():
    found = search(SMALL, V4)
    assert found
    assert all(plan.fits for plan in found)
    steps = [float(f"{plan.step_seconds:.3g}") for plan in found]
    assert steps == sorted(steps)
    tried = candidates(SMALL, V4)
    assert len({tuple(c.items()) for c in tried}) == len(tried) >= len(found)
    assert all(set(c) == set(SETTINGS) for c in tried)
    # What is printed gives the plan back.
    pasted = overrides.parse_arguments(as_overrides(found[0]).split())
    assert make_plan(overrides.override(SMALL, pasted), V4) == found[0]


def test_a_model_that_fits_nowhere_says_by_how_much():
    huge = changed(model__d_model=65_536, model__n_layers=64, model__n_heads=64)
    with pytest.raises(ValueError, match=r"fits no mesh of v4:2x2x2: the least is [\d,.]+ GB"):
        search(huge, V4)
